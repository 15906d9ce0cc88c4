#include "base/crash_report.h"

#include <execinfo.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <span>

namespace fathom {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitizer = true;
#else
constexpr bool kSanitizer = false;
#endif
#else
constexpr bool kSanitizer = false;
#endif

struct Signal {
  int number;
  const char* name;
};
constexpr Signal kSignals[] = {
    {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"}, {SIGFPE, "SIGFPE"}, {SIGABRT, "SIGABRT"}};

constexpr int kFrames = 64;             // of an endless recursion, the newest
constexpr size_t kStackBytes = 65'536;  // the unwinder takes some thousands; what the kernel saves is added
constexpr size_t kNearStack = 65'536;   // a fault so near the stack's end is an overflow

// What is known before a crash, and the first one. Plain memory: a handler may touch nothing else.
struct Report {
  const char* version = "";
  std::array<char, 1024> program{"fathom"};
  uintptr_t base = 0;  // addresses of the binary's file count from here
  uintptr_t code = 0, code_end = 0;
  itimerval patience{};
  std::atomic<pid_t> thread{0};  // that reports
  siginfo_t info{};
};
Report g_report;

// Text without memory from the heap; what does not fit is cut.
class Line {
 public:
  Line& text(const char* words) {
    while (*words != '\0') put(*words++);
    return *this;
  }
  Line& decimal(int64_t number) { return number < 0 ? text("-").digits(0 - number, 10) : digits(number, 10); }
  Line& address(uintptr_t number) { return text("0x").digits(number, 16); }
  void write() {
    put('\n');
    for (size_t from = 0; from < size_;) {
      const ssize_t wrote = ::write(STDERR_FILENO, bytes_.data() + from, size_ - from);
      if (wrote > 0) from += static_cast<size_t>(wrote);
      if (wrote == 0 || (wrote < 0 && errno != EINTR)) break;
    }
    size_ = 0;
  }

 private:
  // The last place is the end of the line's.
  void put(char byte) {
    if (size_ + 1 < bytes_.size() || (byte == '\n' && size_ < bytes_.size())) bytes_[size_++] = byte;
  }
  Line& digits(uint64_t number, uint64_t base) {
    std::array<char, 20> reversed{};
    size_t count = 0;
    do {
      reversed[count++] = "0123456789abcdef"[number % base];
      number /= base;
    } while (number > 0);
    while (count > 0) put(reversed[--count]);
    return *this;
  }

  std::array<char, 3072> bytes_{};
  size_t size_ = 0;
};

// Where the thread stood.
struct Registers {
  uintptr_t code = 0, stack = 0;
};

Registers registers_of(const void* context) {
#if defined(__x86_64__)
  const auto& saved = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  return {static_cast<uintptr_t>(saved[REG_RIP]), static_cast<uintptr_t>(saved[REG_RSP])};
#else
  (void)context;
  return {};  // the stack is told from the handler on
#endif
}

void tell_what(const siginfo_t& info, const Registers& at) {
  const char* name = "a signal";
  for (const Signal& signal : kSignals) {
    if (signal.number == info.si_signo) name = signal.name;
  }
  Line line;
  line.text("fathom ").text(g_report.version).text(" crashed: ").text(name);
  const auto address = reinterpret_cast<uintptr_t>(info.si_addr);
  if (info.si_code == SI_KERNEL) {
    line.text(" at an address that the processor does not tell");
  } else if (info.si_code > 0) {
    line.text(" at address ").address(address);
    if (info.si_signo == SIGSEGV && address + kNearStack > at.stack && address < at.stack + kNearStack)
      line.text(" (the stack has overflowed)");
  } else if (info.si_pid != getpid()) {
    line.text(" sent by process ").decimal(info.si_pid);
  }
  std::array<char, 17> thread{};
  prctl(PR_GET_NAME, thread.data());
  line.text(", in thread ").decimal(g_report.thread.load()).text(" (").text(thread.data());
  line.text(") of process ").decimal(getpid()).write();
}

bool in_binary(const void* place) {
  const auto address = reinterpret_cast<uintptr_t>(place);
  return address >= g_report.code && address < g_report.code_end;
}

// The calls that led to the crash, the newest first. Each is within its instruction, so that a call which
// ends a function is not taken for the beginning of the next one.
std::span<void*> find_stack(const Registers& at, std::span<void*> places) {
  const int found = backtrace(places.data(), static_cast<int>(places.size()));
  auto stack = places.first(static_cast<size_t>(std::max(found, 0)));
  const auto crash = std::find(stack.begin(), stack.end(), reinterpret_cast<void*>(at.code));
  if (crash != stack.end() && crash + 1 != stack.end()) {
    stack = stack.subspan(static_cast<size_t>(crash - stack.begin()));  // not the handler's own
    for (void*& place : stack.subspan(1)) place = static_cast<char*>(place) - 1;
    return stack;
  }
  if (at.code == 0 && at.stack == 0) return stack;
  // Nothing is known of the code there, as after the call of a null pointer: who called it is on the stack.
  places[0] = reinterpret_cast<void*>(at.code);
  std::memcpy(&places[1], reinterpret_cast<const void*>(at.stack), sizeof(void*));
  places[1] = static_cast<char*>(places[1]) - 1;
  return places.first(2);
}

void tell_stack(std::span<void*> stack) {
  if (std::any_of(stack.begin(), stack.end(), in_binary)) {
    Line line;
    line.text("the stack: addr2line -Cfipe ").text(g_report.program.data());
    for (const void* place : stack) {
      if (in_binary(place)) line.text(" ").address(reinterpret_cast<uintptr_t>(place) - g_report.base);
    }
    line.write();
  }
  // Last, for it takes the lock of the loaded libraries.
  backtrace_symbols_fd(stack.data(), static_cast<int>(stack.size()), STDERR_FILENO);
}

// Sends this thread what it was sent, with its default action: a core dump has the cause.
void send_again() {
  signal(g_report.info.si_signo, SIG_DFL);
  if (syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), g_report.info.si_signo, &g_report.info) != 0)
    raise(g_report.info.si_signo);
}

// What is left of the report is left out.
void end_now(int /*number*/) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, g_report.info.si_signo);
  send_again();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  _exit(128 + g_report.info.si_signo);  // the first process of a container outlives signals
}

void limit_time() {
  struct sigaction action {};
  action.sa_handler = end_now;
  action.sa_flags = SA_ONSTACK;
  sigaction(SIGALRM, &action, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  setitimer(ITIMER_REAL, &g_report.patience, nullptr);
}

// Async-signal-safe, but for what find_stack() and tell_stack() ask of libraries: the unwinder was loaded
// before and takes no lock, the names are the last thing, and limit_time() ends what waits.
void on_crash(int number, siginfo_t* info, void* context) {
  pid_t reports = 0;
  if (!g_report.thread.compare_exchange_strong(reports, gettid())) {
    if (reports == gettid()) end_now(number);  // what was to be told of broke the report as well
    while (true) pause();                      // the process ends when the other thread has told
  }
  g_report.info = *info;
  limit_time();
  const Registers at = registers_of(context);
  tell_what(*info, at);
  std::array<void*, kFrames> places{};
  tell_stack(find_stack(at, places));
  send_again();  // taken when the handler has returned, where the thread stood
}

void find_binary() {
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void*) {
        g_report.base = object->dlpi_addr;
        for (const auto& part : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
          if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
          g_report.code = object->dlpi_addr + part.p_vaddr;
          g_report.code_end = g_report.code + part.p_memsz;
        }
        return 1;  // the first object is the program
      },
      nullptr);
  const ssize_t length = readlink("/proc/self/exe", g_report.program.data(), g_report.program.size() - 1);
  if (length > 0) g_report.program[static_cast<size_t>(length)] = '\0';
}

// An alternate signal stack of the thread, below it a page that nobody may touch.
class CrashStack {
 public:
  CrashStack() {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const auto saved = static_cast<size_t>(std::max(sysconf(_SC_MINSIGSTKSZ), 0L));
    const size_t usable = (kStackBytes + saved + page - 1) / page * page;
    void* memory = mmap(nullptr, page + usable, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;  // best effort: other crashes are told all the same
    memory_ = memory;
    size_ = page + usable;
    mprotect(memory_, page, PROT_NONE);
    stack_t stack{};
    stack.ss_sp = static_cast<char*>(memory_) + page;
    stack.ss_size = usable;
    sigaltstack(&stack, nullptr);
  }
  ~CrashStack() {
    if (memory_ == nullptr) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
    munmap(memory_, size_);
  }
  CrashStack(const CrashStack&) = delete;
  CrashStack& operator=(const CrashStack&) = delete;

 private:
  void* memory_ = nullptr;
  size_t size_ = 0;
};

}  // namespace

void give_crash_stack() {
  if (kSanitizer) return;  // it has put one there, and frees what it finds
  thread_local const CrashStack stack;
}

bool report_crashes(const char* version, std::chrono::milliseconds patience) {
  if (kSanitizer) return false;
  g_report.version = version;
  g_report.patience.it_value = {patience.count() / 1000, patience.count() % 1000 * 1000};
  find_binary();
  std::array<void*, 1> place{};
  backtrace(place.data(), 1);  // loads the unwinder
  give_crash_stack();
  struct sigaction action {};
  action.sa_sigaction = on_crash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGPIPE);  // of a stderr that nobody reads: the crash is what ends the process
  for (const Signal& signal : kSignals) sigaction(signal.number, &action, nullptr);
  return true;
}

}  // namespace fathom

#include "base/crash_report.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <barrier>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <regex>
#include <string>
#include <thread>

#include "base/check.h"
#include "base/thread_start.h"

namespace fathom {
namespace {

constexpr int kNoReports = 77;

struct End {
  int status = 0;
  std::string said;
  bool by(int signal) const { return WIFSIGNALED(status) && WTERMSIG(status) == signal; }
};

// Of a child that runs `crash` where crashes are reported. A child that nobody listens to writes to a full
// pipe. Nothing where a sanitizer reports instead.
std::optional<End> end_of(const std::function<void()>& crash, bool heard = true) {
  std::array<int, 2> ends{};
  FATHOM_CHECK(pipe(ends.data()) == 0, "no pipe");
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{};
    setrlimit(RLIMIT_CORE, &none);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    if (!heard) {
      fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK);
      while (write(STDERR_FILENO, "x", 1) == 1) continue;
      fcntl(STDERR_FILENO, F_SETFL, 0);
    }
    if (!report_crashes("1.2.3-test", std::chrono::milliseconds(heard ? 60'000 : 50))) _exit(kNoReports);
    crash();
    _exit(0);
  }
  close(ends[1]);
  End end;
  std::array<char, 4096> bytes{};
  ssize_t got = 0;
  while (heard && (got = read(ends[0], bytes.data(), bytes.size())) > 0)
    end.said.append(bytes.data(), static_cast<size_t>(got));
  waitpid(child, &end.status, 0);
  close(ends[0]);
  if (WIFEXITED(end.status) && WEXITSTATUS(end.status) == kNoReports) return std::nullopt;
  return end;
}

#define END_OF(...)    \
  end_of(__VA_ARGS__); \
  if (!end) GTEST_SKIP() << "the sanitizer tells of crashes"

[[gnu::noinline]] void write_to(volatile int* place) {
  *place = 1;
}

// Never inlined, and with work left after the call: both are on the stack.
[[gnu::noinline]] void fall_over(uintptr_t address) {
  write_to(reinterpret_cast<volatile int*>(address));
  asm volatile("");
}

volatile int g_bottom = 0;

[[gnu::noinline]] int descend(int depth) {
  volatile char room[1024];
  room[depth % 1024] = static_cast<char>(depth);
  return depth == g_bottom - 1 ? 0 : descend(depth + 1) + room[depth % 1024];
}

std::string output_of(const std::string& command) {
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  std::array<char, 4096> bytes{};
  while (const size_t got = fread(bytes.data(), 1, bytes.size(), pipe)) output.append(bytes.data(), got);
  pclose(pipe);
  return output;
}

TEST(CrashReport, TellsWhatWhereAndInWhichThread) {
  const auto end = END_OF([] {
    std::thread([] {
      begin_thread("the crashing");
      fall_over(0x10);
    }).join();
  });
  EXPECT_TRUE(end->by(SIGSEGV)) << end->status;
  const std::regex what(R"(^fathom 1\.2\.3-test crashed: SIGSEGV at address 0x10, )"
                        R"(in thread \d+ \(the crashing\) of process \d+\n)"
                        R"(the stack: (addr2line -Cfipe \S*base_test( 0x[0-9a-f]+)+)\n)"
                        R"((\S*base_test\(.*\)[^\n]*\n)+)");
  std::smatch found;
  ASSERT_TRUE(std::regex_search(end->said, found, what)) << end->said;
  if (std::system("addr2line --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no addr2line";
  const std::string names = output_of(found[1]);
  EXPECT_TRUE(std::regex_search(names, std::regex(R"(^.*write_to[^\n]*\n[^\n]*fall_over)"))) << names;
}

TEST(CrashReport, TellsOfEverySuchSignal) {
  const struct {
    int signal;
    const char* name;
    std::function<void()> crash;
  } cases[] = {
      {SIGBUS, "SIGBUS at address 0x",
       [] {
         char name[] = "/tmp/fathom-crash-XXXXXX";
         const int file = mkstemp(name);
         unlink(name);
         void* page = mmap(nullptr, 1, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);  // of an empty file
         write_to(static_cast<volatile int*>(page));
       }},
      {SIGILL, "SIGILL at address 0x", [] { __builtin_trap(); }},
      {SIGFPE, "SIGFPE, in", [] { raise(SIGFPE); }},
      {SIGABRT, "SIGABRT, in", [] { FATHOM_CHECK(g_bottom > 0, "bottom={}", int{g_bottom}); }},
      {SIGSEGV, "SIGSEGV, in", [] { kill(getpid(), SIGSEGV); }},
  };
  for (const auto& one : cases) {
    const auto end = END_OF(one.crash);
    EXPECT_TRUE(end->by(one.signal)) << one.name << ": " << end->status;
    EXPECT_NE(end->said.find(std::string(" crashed: ") + one.name), std::string::npos) << end->said;
    EXPECT_NE(end->said.find("the stack: addr2line"), std::string::npos) << end->said;
    if (one.signal != SIGABRT) continue;
    EXPECT_EQ(end->said.find(__FILE__), 0U) << end->said;  // the CHECK's words
  }
}

TEST(CrashReport, TellsOfAStackThatHasOverflowed) {
  for (const bool in_thread : {false, true}) {
    const auto end = END_OF([&] {
      if (!in_thread) _exit(descend(0));
      std::thread([] {
        begin_thread("deep");
        descend(0);
      }).join();
    });
    EXPECT_TRUE(end->by(SIGSEGV)) << end->status;
    EXPECT_NE(end->said.find(" (the stack has overflowed), in thread"), std::string::npos) << end->said;
    EXPECT_NE(end->said.find("the stack: addr2line"), std::string::npos) << end->said;
  }
}

#if defined(__x86_64__)
TEST(CrashReport, NamesWhoCalledANullPointer) {
  const auto end = END_OF([] {
    void (*volatile nowhere)() = nullptr;
    nowhere();
    asm volatile("");
  });
  EXPECT_TRUE(end->by(SIGSEGV)) << end->status;
  const std::regex caller(R"(crashed: SIGSEGV at address 0x0, .*\n.* addr2line -Cfipe \S+ 0x[0-9a-f]+\n)");
  EXPECT_TRUE(std::regex_search(end->said, caller)) << end->said;
}

TEST(CrashReport, TellsNoAddressWhereTheProcessorTellsNone) {
  const auto end = END_OF([] { fall_over(0x8000'0000'0000'0000); });
  EXPECT_TRUE(end->by(SIGSEGV)) << end->status;
  EXPECT_NE(end->said.find("SIGSEGV at an address that the processor does not tell,"), std::string::npos)
      << end->said;
}

// The stack pointer points nowhere: the unwinder crashes too. The first signal is the process's end.
TEST(CrashReport, ACrashOfTheReportEndsIt) {
  const auto end = END_OF([] { asm volatile("mov $64, %rsp\n ud2"); });
  EXPECT_TRUE(end->by(SIGILL)) << end->status;
  EXPECT_NE(end->said.find(" crashed: SIGILL at address 0x"), std::string::npos) << end->said;
}
#endif

TEST(CrashReport, OneThreadReports) {
  const auto end = END_OF([] {
    std::barrier together(4);
    const auto crash = [&] {
      begin_thread("one of four");
      together.arrive_and_wait();
      fall_over(0x20);
    };
    std::array<std::thread, 4> threads;
    for (auto& thread : threads) thread = std::thread(crash);
    for (auto& thread : threads) thread.join();
  });
  EXPECT_TRUE(end->by(SIGSEGV)) << end->status;
  const size_t first = end->said.find(" crashed: ");
  EXPECT_NE(first, std::string::npos);
  EXPECT_EQ(end->said.find(" crashed: ", first + 1), std::string::npos) << end->said;
}

TEST(CrashReport, EndsThoughNobodyReadsIt) {
  const auto end = END_OF([] { fall_over(0x10); }, /*heard=*/false);
  EXPECT_TRUE(end->by(SIGSEGV)) << end->status;
}

TEST(CrashReport, LeavesOtherSignalsAlone) {
  const auto end = END_OF([] { raise(SIGTERM); });
  EXPECT_TRUE(end->by(SIGTERM)) << end->status;
  EXPECT_EQ(end->said, "");
}

TEST(CrashReport, SaysNothingWithoutACrash) {
  const auto end = END_OF([] {
    for (int i = 0; i < 100; ++i) std::thread([] { begin_thread("short"); }).join();
  });
  EXPECT_TRUE(WIFEXITED(end->status) && WEXITSTATUS(end->status) == 0) << end->status;
  EXPECT_EQ(end->said, "");
}

}  // namespace
}  // namespace fathom

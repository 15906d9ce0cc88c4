#include "weights/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <utility>

namespace fathom::weights {

// One mapping, as the signal handler sees it. Never freed, because the handler may be looking: taken again
// by a later mapping.
struct MappedFile::Guard {
  std::atomic<uintptr_t> begin{0};  // 0: free
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> lost{false};
  Guard* next = nullptr;
};

struct GuardList {
  using Guard = MappedFile::Guard;

  static inline std::atomic<Guard*> first{nullptr};
  static inline std::mutex mutex;  // of those who change the list
  static inline struct sigaction previous {};

  static Guard* take(const std::byte* data, size_t size) {
    std::lock_guard lock(mutex);
    if (first.load() == nullptr) install();
    Guard* guard = first.load();
    while (guard != nullptr && guard->begin.load() != 0) guard = guard->next;
    if (guard == nullptr) {
      guard = new Guard;
      guard->next = first.load();
      first.store(guard);
    }
    guard->lost.store(false);
    guard->end.store(reinterpret_cast<uintptr_t>(data) + size);
    guard->begin.store(reinterpret_cast<uintptr_t>(data));
    return guard;
  }

  static void install() {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
  }

  // Atomics and system calls only.
  static void on_bus_error(int, siginfo_t* info, void*) {
    const int saved = errno;
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    for (Guard* guard = first.load(); guard != nullptr; guard = guard->next) {
      const uintptr_t begin = guard->begin.load();
      const uintptr_t end = guard->end.load();
      if (begin == 0 || address < begin || address >= end) continue;
      guard->lost.store(true);  // before anyone can read the zeros
      const uintptr_t page = address - address % static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
      void* zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      errno = saved;
      if (zeros != MAP_FAILED) return;
      break;
    }
    sigaction(SIGBUS, &previous, nullptr);  // the access is tried again and meets its usual end
  }
};

Result<MappedFile> MappedFile::open(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return error(ErrorCode::kNotFound, "{}: {}", path, std::strerror(errno));
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    return error(ErrorCode::kInvalidArgument, "{}: not a regular file", path);
  }
  MappedFile file;
  file.path_ = path;
  const auto size = static_cast<size_t>(status.st_size);
  void* data = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0) : nullptr;
  const int failure = errno;
  ::close(descriptor);
  if (data == MAP_FAILED) {
    return error(ErrorCode::kUnavailable, "{}: cannot be mapped: {}", path, std::strerror(failure));
  }
  if (size == 0) return file;
  file.data_ = static_cast<std::byte*>(data);
  file.size_ = size;
  file.guard_ = GuardList::take(file.data_, size);
  return file;
}

MappedFile::~MappedFile() {
  if (guard_ == nullptr) return;
  guard_->begin.store(0);
  munmap(data_, size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(guard_, other.guard_);
  return *this;
}

Result<void> MappedFile::intact() const {
  if (guard_ == nullptr || !guard_->lost.load()) return {};
  struct stat status {};
  const auto now = stat(path_.c_str(), &status) == 0 ? static_cast<size_t>(status.st_size) : 0;
  if (now < size_) {
    return error(ErrorCode::kDataLoss,
                 "{}: had {} bytes when it was opened and has {} now: it was cut short while it was read; "
                 "copy it again, and let nothing write to it",
                 path_, size_, now);
  }
  return error(ErrorCode::kDataLoss,
               "{}: its bytes could not be read: the disk failed, or the file was changed", path_);
}

}  // namespace fathom::weights

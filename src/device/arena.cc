#include "device/arena.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "base/math.h"

namespace fathom::device {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kAlignment = 64;

size_t read_bytes(const char* path) {
  std::ifstream file(path);
  size_t value = 0;
  if (file >> value) return value;
  return std::numeric_limits<size_t>::max();  // absent, or "max"
}

// The online NUMA nodes as a bit mask, from "0-1" or "0,2"; 1 where there is no such file.
unsigned long numa_nodes() {
  std::ifstream file("/sys/devices/system/node/online");
  unsigned long mask = 0;
  unsigned first = 0;
  while (file >> first) {
    unsigned last = first;
    if (file.peek() == '-') {
      file.ignore();
      file >> last;
    }
    for (unsigned node = first; node <= last && node < 64; ++node) mask |= 1UL << node;
    if (file.peek() == ',') file.ignore();
  }
  return mask != 0 ? mask : 1;
}

// Spreads the pages over all NUMA nodes in turn: every thread reads every weight, so all memory controllers
// should serve each of them. A wish; the default placement works too.
void interleave(void* start, size_t bytes) {
  static const unsigned long nodes = numa_nodes();
  if ((nodes & (nodes - 1)) == 0) return;  // one node
  constexpr int kInterleave = 3;           // MPOL_INTERLEAVE
  syscall(SYS_mbind, start, bytes, kInterleave, &nodes, sizeof(nodes) * 8, 0);
}

}  // namespace

Result<Buffer> Buffer::allocate(size_t bytes) {
  Buffer buffer;
  if (bytes == 0) return buffer;
  // Over-map by one huge page so that the start can be aligned; the slack is never touched.
  const size_t mapped = round_up(bytes, kHugePage) + kHugePage;
  void* base =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return error(ErrorCode::kUnavailable, "cannot allocate {} MiB of memory ({} MiB available)", bytes >> 20,
                 available_memory() >> 20);
  }
  auto* start = static_cast<std::byte*>(base);
  const size_t shift = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
  if (shift > 0) munmap(start, shift);
  buffer.data_ = start + shift;
  buffer.size_ = bytes;
  buffer.mapped_ = mapped - shift;
  madvise(buffer.data_, buffer.mapped_, MADV_HUGEPAGE);  // a wish: small pages work too
  interleave(buffer.data_, buffer.mapped_);
  return buffer;
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, mapped_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Result<std::byte*> Arena::allocate(size_t bytes) {
  const size_t size = round_up(bytes, kAlignment);
  if (blocks_.empty() || offset_ + size > blocks_.back().size()) {
    FATHOM_ASSIGN(Buffer block, Buffer::allocate(std::max(size, block_bytes_)));
    blocks_.push_back(std::move(block));
    offset_ = 0;
  }
  std::byte* piece = blocks_.back().data() + offset_;
  offset_ += size;
  used_ += size;
  return piece;
}

size_t available_memory() {
  size_t available = std::numeric_limits<size_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  size_t kib = 0;
  std::string unit;
  while (meminfo >> key >> kib >> unit) {
    if (key == "MemAvailable:") {
      available = kib << 10;
      break;
    }
  }
  const size_t limit = read_bytes("/sys/fs/cgroup/memory.max");
  const size_t current = read_bytes("/sys/fs/cgroup/memory.current");
  if (limit != std::numeric_limits<size_t>::max() && current != std::numeric_limits<size_t>::max()) {
    available = std::min(available, limit > current ? limit - current : 0);
  }
  return available;
}

}  // namespace fathom::device

#include "weights/read_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"
#include "base/thread_start.h"

namespace fathom::weights {
namespace {

constexpr size_t kPiece = size_t{16} << 20;  // of a request: the thread can end between two

void ask(std::span<const std::byte> bytes) {
  // From the start of its page on. A refusal costs speed alone.
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t into = address % static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  madvise(reinterpret_cast<void*>(address - into), bytes.size() + into, MADV_WILLNEED);
}

}  // namespace

ReadAhead::ReadAhead(const Checkpoint& checkpoint) {
  for (const auto& file : checkpoint.files()) {
    const auto bytes = file.bytes();
    files_.push_back({bytes.data(), bytes.data() + bytes.size(), bytes.data()});
  }
  std::sort(files_.begin(), files_.end(), [](const File& a, const File& b) { return a.begin < b.begin; });
  thread_ = std::thread([this] {
    begin_thread("read ahead");
    while (const auto bytes = wanted_.pop()) ask(*bytes);
  });
}

ReadAhead::~ReadAhead() {
  while (wanted_.try_pop()) {
  }
  wanted_.close();
  thread_.join();
}

void ReadAhead::reading(const TensorView& tensor) {
  const auto after =
      std::upper_bound(files_.begin(), files_.end(), tensor.data,
                       [](const std::byte* data, const File& file) { return data < file.begin; });
  FATHOM_CHECK(after != files_.begin(), "{} is of no file", tensor.name);
  File& file = *(after - 1);
  file.asked = std::max(file.asked, tensor.data);
  const auto left = static_cast<size_t>(file.end - tensor.data);
  const std::byte* until = tensor.data + std::min(left, tensor.bytes + kAhead);
  while (file.asked < until) {
    const auto piece = std::min(kPiece, static_cast<size_t>(until - file.asked));
    if (piece < kPiece && until != file.end) break;
    wanted_.push({file.asked, piece});
    file.asked += piece;
  }
}

}  // namespace fathom::weights

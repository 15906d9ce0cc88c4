#include "device/cuda/memory.h"

#include <utility>

#include "device/cuda/gpu.h"

namespace fathom::device::cuda {
namespace {

Error no_memory(const char* what, size_t bytes, const Error& cause) {
  return error(cause.code, "{} of {:.2f} GB: {}", what, static_cast<double>(bytes) * 1e-9, cause.message);
}

}  // namespace

Result<DeviceBuffer> DeviceBuffer::allocate(size_t bytes) {
  DeviceBuffer buffer;
  const auto status = check(cudaMalloc(&buffer.data_, bytes), "cudaMalloc");
  if (!status.ok()) {
    cudaGetLastError();  // out of memory is not sticky; the next launch must not report it
    return no_memory("GPU memory", bytes, status.error());
  }
  buffer.size_ = bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}
DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Result<PinnedBuffer> PinnedBuffer::allocate(size_t bytes) {
  PinnedBuffer buffer;
  const auto status = check(cudaMallocHost(&buffer.data_, bytes), "cudaMallocHost");
  if (!status.ok()) {
    cudaGetLastError();
    return no_memory("pinned memory", bytes, status.error());
  }
  buffer.size_ = bytes;
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}
PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Result<void*> DeviceArena::allocate(size_t bytes) {
  const size_t size = round_up(bytes, size_t{256});
  if (blocks_.empty() || offset_ + size > blocks_.back().size()) {
    FATHOM_ASSIGN(auto block, DeviceBuffer::allocate(size > block_bytes_ ? size : block_bytes_));
    blocks_.push_back(std::move(block));
    offset_ = 0;
  }
  void* data = static_cast<std::byte*>(blocks_.back().data()) + offset_;
  offset_ += size;
  used_ += size;
  return data;
}

}  // namespace fathom::device::cuda

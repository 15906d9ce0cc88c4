#include "model/model.h"

namespace fathom::model {

Result<KvPool> KvPool::allocate(const KvLayout& layout, int64_t num_pages, int64_t page_size) {
  FATHOM_CHECK(num_pages > 0 && page_size > 0, "pages={} page_size={}", num_pages, page_size);
  KvPool pool;
  pool.num_pages_ = num_pages;
  pool.page_size_ = page_size;
  const int64_t bytes = num_pages * page_size * layout.width * device::size_of(layout.dtype);
  for (int64_t layer = 0; layer < layout.layers; ++layer) {
    auto buffer = device::Buffer::allocate(static_cast<size_t>(bytes));
    if (!buffer.ok()) return buffer.error().with_context("KV cache");
    ops::KvCache cache;
    cache.data = buffer->data();
    cache.dtype = layout.dtype;
    cache.num_pages = num_pages;
    cache.page_size = page_size;
    cache.width = layout.width;
    pool.layers_.push_back(cache);
    pool.buffers_.push_back(std::move(*buffer));
  }
  return pool;
}

int64_t KvPool::bytes() const {
  int64_t total = 0;
  for (const auto& buffer : buffers_) total += static_cast<int64_t>(buffer.size());
  return total;
}

}  // namespace fathom::model

#include "kv/page_pool.h"

namespace fathom::kv {

PagePool::PagePool(int32_t num_pages) {
  FATHOM_CHECK(num_pages > 0, "num_pages={}", num_pages);
  used_.assign(static_cast<size_t>(num_pages), 0);
  free_.reserve(static_cast<size_t>(num_pages));
  for (int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

bool PagePool::allocate(int32_t count, std::vector<int32_t>* out) {
  FATHOM_CHECK_GE(count, 0);
  if (count > free_pages()) return false;
  for (int32_t i = 0; i < count; ++i) {
    int32_t page = free_.back();
    free_.pop_back();
    used_[static_cast<size_t>(page)] = 1;
    out->push_back(page);
  }
  return true;
}

void PagePool::release(int32_t page) {
  FATHOM_CHECK(page >= 0 && page < num_pages(), "page={} of {}", page, num_pages());
  FATHOM_CHECK(used_[static_cast<size_t>(page)], "page {} given back twice", page);
  used_[static_cast<size_t>(page)] = 0;
  free_.push_back(page);
}

void PagePool::release(std::span<const int32_t> pages) {
  // In reverse, so that the next allocation hands them out in the same order.
  for (size_t i = pages.size(); i > 0; --i) release(pages[i - 1]);
}

Result<void> PagePool::check_integrity() const {
  std::vector<uint8_t> seen(used_.size(), 0);
  for (int32_t page : free_) {
    if (page < 0 || page >= num_pages()) {
      return error(ErrorCode::kInternal, "free list: page {} is not in 0..{}", page, num_pages() - 1);
    }
    auto index = static_cast<size_t>(page);
    if (seen[index]) return error(ErrorCode::kInternal, "free list: page {} is there twice", page);
    if (used_[index]) return error(ErrorCode::kInternal, "page {} is both free and given out", page);
    seen[index] = 1;
  }
  for (size_t page = 0; page < used_.size(); ++page) {
    if (!used_[page] && !seen[page]) {
      return error(ErrorCode::kInternal, "page {} is neither free nor given out", page);
    }
  }
  return {};
}

}  // namespace fathom::kv

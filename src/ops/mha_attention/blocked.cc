#include "ops/mha_attention/blocked.h"

#include <functional>

#include "ops/attention/head_flash.h"

namespace fathom::ops {
namespace {

class MhaAttention {
 public:
  MhaAttention(device::Launch& launch, const MhaAttentionArgs& args, const FlashKernels& kernels)
      : launch_(launch), args_(args), kernels_(kernels), heads_(args.q.dim(1)), key_(args.q.dim(2)) {
    int64_t longest = 1, work = 0;
    for (const AttentionRow& row : args.rows) {
      longest = std::max<int64_t>(longest, row.count);
      work += row.count * heads_;
    }
    plan_ = plan_heads(longest, work, kernels.lanes, launch.pool().size());
  }

  void run() {
    int64_t items = 0;
    for (const AttentionRow& row : args_.rows) items += items_of(row);
    const auto body = [this](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) attend(i, worker);
    };
    launch_.pool().parallel_for(items, 1, std::ref(body));
  }

 private:
  int64_t items_of(const AttentionRow& row) const {
    return heads_ * ceil_div<int64_t>(row.count, plan_.range);
  }

  void attend(int64_t item, int worker) const {
    const AttentionRow* row = args_.rows.data();
    for (; item >= items_of(*row); ++row) item -= items_of(*row);
    const int64_t head = item % heads_;
    // The last tokens see most keys: take them first.
    const int64_t ranges = ceil_div<int64_t>(row->count, plan_.range);
    const int64_t first = (ranges - 1 - item / heads_) * plan_.range;

    HeadFlash flash(kernels_, plan_, key_, args_.value, args_.scale);
    flash.use(launch_.scratch(worker, flash.bytes()));
    HeadQueries queries;
    queries.q = args_.q.row<float>(row->first + first) + head * args_.q.stride[1];
    queries.q_stride = args_.q.stride[0];
    queries.out = args_.out.row<float>(row->first + first) + head * args_.out.stride[1];
    queries.out_stride = args_.out.stride[0];
    queries.count = std::min(plan_.range, row->count - first);
    queries.first_place = row->start + first;
    flash.begin(queries, false);
    flash.add(0, row->start + row->count, [&](int64_t place, int64_t count, float* keys, float* values) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t p = place + i;
        const void* entry = entry_of(args_.cache, *row, p);
        read(entry, head * key_, key_, keys + i * key_);
        read(entry, heads_ * key_ + head * args_.value, args_.value, values + i * args_.value);
      }
    });
    flash.finish(false);
  }

  void read(const void* entry, int64_t first, int64_t count, float* values) const {
    if (args_.cache.dtype == device::DType::kBF16)
      kernels_.widen(static_cast<const uint16_t*>(entry) + first, values, count);
    else
      std::memcpy(values, static_cast<const float*>(entry) + first,
                  static_cast<size_t>(count) * sizeof(float));
  }

  device::Launch& launch_;
  const MhaAttentionArgs& args_;
  const FlashKernels& kernels_;
  const int64_t heads_, key_;
  HeadPlan plan_;
};

}  // namespace

void mha_attention_blocked(device::Launch& launch, const MhaAttentionArgs& args,
                           const FlashKernels& kernels) {
  MhaAttention(launch, args, kernels).run();
}

}  // namespace fathom::ops

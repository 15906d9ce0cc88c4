#include "ops/extend_attention/blocked.h"

#include <functional>

#include "base/check.h"
#include "ops/attention/head_flash.h"

namespace fathom::ops {
namespace {

// Places [begin, end) of a row: those before kept_end are kept, the others are projected into rows `first`
// and up of the group.
struct Segment {
  const AttentionRow* row;
  int64_t begin, kept_end, end;
  int64_t first;
  int64_t first_item;
};

class ExtendAttention {
 public:
  ExtendAttention(device::Launch& launch, const ExtendAttentionArgs& args, const FlashKernels& kernels)
      : launch_(launch),
        args_(args),
        kernels_(kernels),
        heads_(args.q.dim(1)),
        rope_(args.q.dim(2) - args.nope),
        pair_(args.nope + args.value),
        budget_(std::max(kKeyBlock, args.chunk / kKeyBlock * kKeyBlock)) {
    int64_t longest = 1, work = 0, places = 0;
    for (const AttentionRow& row : args.rows) {
      longest = std::max<int64_t>(longest, row.count);
      work += row.count * heads_;
      places += row.start + row.count;
    }
    plan_ = plan_heads(longest, work, kernels.lanes, launch.pool().size());
    budget_ = std::min(budget_, places);
    split_ = places > budget_;
  }

  void run() {
    if (args_.rows.empty()) return;
    cut_shared();
    int64_t row = 0, place = 0;
    while (row < static_cast<int64_t>(args_.rows.size())) {
      fill_group(row, place);
      if (places_ > 0) project();
      attend_group();
    }
  }

 private:
  void cut_shared() {
    const int64_t tokens = args_.q.dim(0);
    for (std::byte* memory = nullptr;;) {
      ScratchCutter cutter(memory);
      segments_ = cutter.take<Segment>(static_cast<int64_t>(args_.rows.size()));  // one of a row at most
      latents_ = cutter.take<float>(budget_ * args_.latent);
      projected_ = cutter.take<float>(budget_ * heads_ * pair_);
      if (split_) {
        tops_ = cutter.take<float>(tokens * heads_);
        totals_ = cutter.take<float>(tokens * heads_);
      }
      if (memory != nullptr) return;
      memory = launch_.outer_scratch(cutter.used());
    }
  }

  // The end of the row's places from `place` on that are kept.
  int64_t kept_end(const AttentionRow& row, int64_t place, int64_t total) const {
    if (args_.kept.keys == nullptr) return place;
    const int64_t size = args_.cache.page_size;
    while (place < total) {
      const int64_t kept = args_.kept.keys->count(args_.kept.layer, row.block_table[place / size]);
      if (place % size >= kept) break;
      place = place / size * size + kept;
      if (kept < size) break;
    }
    return std::min(place, total);
  }

  // Takes whole rows while what has to be projected of them fits, and multiples of kKeyBlock places of one
  // that does not. That one's rest goes on from the sums that this piece leaves, so it is the next group's
  // even where it would fit, being kept.
  void fill_group(int64_t& row, int64_t& place) {
    count_ = places_ = items_ = 0;
    while (row < static_cast<int64_t>(args_.rows.size()) && places_ < budget_) {
      const AttentionRow& source = args_.rows[static_cast<size_t>(row)];
      const int64_t total = source.start + source.count;
      const int64_t kept = kept_end(source, place, total);
      int64_t end = total;
      if (end - kept > budget_ - places_) end = (kept + budget_ - places_) / kKeyBlock * kKeyBlock;
      if (end == place) return;
      FATHOM_CHECK_LT(count_, static_cast<int64_t>(args_.rows.size()));
      segments_[count_] = {&source, place, std::min(kept, end), end, places_, items_};
      places_ += end - segments_[count_++].kept_end;
      items_ += heads_ * ceil_div<int64_t>(source.count, plan_.range);
      place = end;
      if (place < total) return;
      ++row;
      place = 0;
    }
  }

  const void* entry(const AttentionRow& row, int64_t place) const {
    return args_.cache.entry(row.block_table[place / args_.cache.page_size], place % args_.cache.page_size);
  }
  void read(const void* entry, int64_t first, int64_t count, float* values) const {
    if (args_.cache.dtype == device::DType::kBF16)
      kernels_.widen(static_cast<const uint16_t*>(entry) + first, values, count);
    else
      std::memcpy(values, static_cast<const float*>(entry) + first,
                  static_cast<size_t>(count) * sizeof(float));
  }

  void project() {
    const auto gather = [this](int64_t begin, int64_t end, int) {
      const Segment* segment = segments_;
      for (int64_t i = begin; i < end; ++i) {
        while (i >= segment->first + segment->end - segment->kept_end) ++segment;
        read(entry(*segment->row, segment->kept_end + i - segment->first), 0, args_.latent,
             latents_ + i * args_.latent);
      }
    };
    launch_.pool().parallel_for(places_, 32, std::ref(gather));
    LinearArgs linear;
    linear.x = device::Tensor(latents_, device::DType::kF32, {places_, args_.latent});
    linear.y = device::Tensor(projected_, device::DType::kF32, {places_, heads_ * pair_});
    linear.weight = args_.kv_b;
    args_.linear(launch_, linear);
    if (args_.kept.keys == nullptr) return;
    for (int64_t i = 0; i < count_; ++i) {
      if (segments_[i].row->goes_on) keep(segments_[i]);
    }
  }

  void keep(const Segment& segment) const {
    const int64_t size = args_.cache.page_size;
    for (int64_t place = segment.kept_end; place < segment.end;) {
      const int64_t count = std::min(size - place % size, segment.end - place);
      float* to = args_.kept.keys->keep(args_.kept.layer, segment.row->block_table[place / size],
                                        place % size, count);
      if (to == nullptr) return;
      std::memcpy(to, projected_ + (segment.first + place - segment.kept_end) * heads_ * pair_,
                  static_cast<size_t>(count * heads_ * pair_) * sizeof(float));
      place += count;
    }
  }

  // [Nh, Dn + Dv] of a place of the segment.
  const float* projected(const Segment& segment, int64_t place) const {
    if (place >= segment.kept_end)
      return projected_ + (segment.first + place - segment.kept_end) * heads_ * pair_;
    const int64_t size = args_.cache.page_size;
    return args_.kept.keys->entry(args_.kept.layer, segment.row->block_table[place / size], place % size);
  }

  void attend_group() {
    const auto body = [this](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) attend(i, worker);
    };
    launch_.pool().parallel_for(items_, 1, std::ref(body));
  }

  void attend(int64_t item, int worker) const {
    int64_t index = count_ - 1;
    while (segments_[index].first_item > item) --index;
    const Segment& segment = segments_[index];
    const AttentionRow& row = *segment.row;
    item -= segment.first_item;
    const int64_t head = item % heads_;
    // The last tokens see most keys: take them first.
    const int64_t ranges = ceil_div<int64_t>(row.count, plan_.range);
    const int64_t first = (ranges - 1 - item / heads_) * plan_.range;
    const int64_t count = std::min(plan_.range, row.count - first);
    const int64_t visible = row.start + first + count;
    if (segment.begin >= visible) return;

    HeadFlash flash(kernels_, plan_, args_.nope + rope_, args_.value, args_.scale);
    flash.use(launch_.scratch(worker, flash.bytes()));
    HeadQueries queries;
    queries.q = args_.q.row<float>(row.first + first) + head * args_.q.stride[1];
    queries.q_stride = args_.q.stride[0];
    queries.out = args_.out.row<float>(row.first + first) + head * args_.out.stride[1];
    queries.out_stride = args_.out.stride[0];
    queries.count = count;
    queries.first_place = row.start + first;
    const bool resume = segment.begin > 0, more = segment.end < visible;
    if (resume || more) {
      queries.tops = tops_ + head * args_.q.dim(0) + row.first + first;
      queries.totals = totals_ + head * args_.q.dim(0) + row.first + first;
    }
    flash.begin(queries, resume);
    flash.add(segment.begin, segment.end, [&](int64_t place, int64_t keys_count, float* keys, float* values) {
      for (int64_t i = 0; i < keys_count; ++i) {
        const float* source = projected(segment, place + i) + head * pair_;
        float* key = keys + i * (args_.nope + rope_);
        std::memcpy(key, source, static_cast<size_t>(args_.nope) * sizeof(float));
        read(entry(row, place + i), args_.latent, rope_, key + args_.nope);
        std::memcpy(values + i * args_.value, source + args_.nope,
                    static_cast<size_t>(args_.value) * sizeof(float));
      }
    });
    flash.finish(more);
  }

  device::Launch& launch_;
  const ExtendAttentionArgs& args_;
  const FlashKernels& kernels_;
  const int64_t heads_, rope_, pair_;  // pair: one head's nope and value parts
  int64_t budget_;
  bool split_ = false;  // some row may be taken in several groups
  HeadPlan plan_;
  int64_t count_ = 0, places_ = 0, items_ = 0;  // of the group
  Segment* segments_ = nullptr;
  float* latents_ = nullptr;    // [places, Dc]
  float* projected_ = nullptr;  // [places, Nh, Dn + Dv]
  float* tops_ = nullptr;       // [Nh, T]
  float* totals_ = nullptr;     // [Nh, T]
};

}  // namespace

void extend_attention_blocked(device::Launch& launch, const ExtendAttentionArgs& args,
                              const FlashKernels& kernels) {
  ExtendAttention(launch, args, kernels).run();
}

}  // namespace fathom::ops

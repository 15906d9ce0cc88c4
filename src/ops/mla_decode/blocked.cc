#include "ops/mla_decode/blocked.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numbers>

#include "base/math.h"
#include "ops/attention/scratch.h"
#include "ops/mla_decode/plan.h"

namespace fathom::ops {
namespace {

// Latent values that one item of the merge takes.
constexpr int64_t kMergePart = 128;

struct Unit {
  const AttentionRow* row;
  int64_t first_tile, tiles;
  int64_t splits;
  int64_t first_item;  // of all items of the call
};

struct Item {
  int32_t unit;
  int32_t split;
};

class MlaDecode {
 public:
  MlaDecode(device::Launch& launch, const MlaDecodeArgs& args, const FlashKernels& kernels)
      : launch_(launch),
        args_(args),
        kernels_(kernels),
        heads_(args.q.dim(1)),
        width_(args.q.dim(2)),
        parts_(ceil_div(args.latent, kMergePart)),
        plan_(
            plan_mla_decode(args.rows, heads_, args.latent, kernels.lanes, kMlaSplit, launch.pool().size())),
        tile_floats_(plan_.columns * (2 * parts_ + args.latent)) {}

  void run() {
    if (plan_.items == 0) return;
    cut_shared();
    list_units();
    int64_t done = 0;
    for (int64_t unit = 0; done < plan_.items;) {
      const int64_t count = std::min(plan_.wave, plan_.items - done);
      int64_t last = unit;
      for (int64_t i = 0; i < count; ++i) {
        while (done + i >= units_[last].first_item + units_[last].splits) ++last;
        items_[i] = {static_cast<int32_t>(last), static_cast<int32_t>(done + i - units_[last].first_item)};
      }
      const auto compute = [&](int64_t begin, int64_t end, int worker) {
        for (int64_t i = begin; i < end; ++i) attend(i, worker);
      };
      launch_.pool().parallel_for(count, 1, std::ref(compute));
      merge_wave(unit, last, done, count);
      done += count;
      unit = last;
    }
  }

 private:
  // The state of one tile: each part of the merge has its own copy of the tops and totals.
  struct Tile {
    float* tops;  // [parts][2][columns]
    float* sums;  // [latent][columns]
  };
  Tile tile(float* states, int64_t slot, int64_t index) const {
    float* start = states + (slot * plan_.group + index) * tile_floats_;
    return {start, start + 2 * parts_ * plan_.columns};
  }
  FlashState part(const Tile& tile, int64_t index) const {
    float* top = tile.tops + index * 2 * plan_.columns;
    return {top, top + plan_.columns, tile.sums + index * kMergePart * plan_.columns};
  }

  void cut_shared() {
    for (std::byte* memory = nullptr;;) {
      ScratchCutter cutter(memory);
      units_ = cutter.take<Unit>(plan_.units);
      items_ = cutter.take<Item>(plan_.wave);
      carry_ = cutter.take<float>(plan_.group * tile_floats_);
      states_ = cutter.take<float>(plan_.wave * plan_.group * tile_floats_);
      if (memory != nullptr) return;
      memory = launch_.shared_scratch(cutter.used());
    }
  }

  void list_units() {
    int64_t unit = 0, item = 0;
    for (const AttentionRow& row : args_.rows) {
      const int64_t tiles = ceil_div(row.count * heads_, plan_.columns);
      const int64_t splits = ceil_div<int64_t>(row.start + row.count, kMlaSplit);
      for (int64_t first = 0; first < tiles; first += plan_.group) {
        units_[unit++] = {&row, first, std::min(plan_.group, tiles - first), splits, item};
        item += splits;
      }
    }
  }

  const void* entry(const AttentionRow& row, int64_t place) const {
    return entry_of(args_.cache, row, place);
  }

  // Calls body(column in the tile, how many, token, head) for the runs of one token's heads in a tile.
  template <class Body>
  void each_run(const AttentionRow& row, int64_t tile, const Body& body) const {
    const int64_t begin = tile * plan_.columns;
    const int64_t end = std::min(begin + plan_.columns, row.count * heads_);
    for (int64_t c = begin; c < end;) {
      const int64_t token = c / heads_, head = c % heads_;
      const int64_t count = std::min(heads_ - head, end - c);
      body(c - begin, count, token, head);
      c += count;
    }
  }

  struct WorkerMemory {
    float* keys;           // [kKeyBlock][width]
    float* values;         // [kKeyBlock / 2][latent] where the kernels take pairs
    float* queries;        // [group][width][columns]
    float* limits;         // [group][columns]
    float* weights;        // [kKeyBlock][columns]
    const void** entries;  // [2][kKeyBlock]
  };
  WorkerMemory cut_worker(int worker) {
    WorkerMemory m{};
    for (std::byte* memory = nullptr;;) {
      ScratchCutter cutter(memory);
      m.keys = cutter.take<float>(kKeyBlock * width_);
      m.values = cutter.take<float>(kernels_.pairs ? kKeyBlock / 2 * args_.latent : 0);
      m.queries = cutter.take<float>(plan_.group * width_ * plan_.columns);
      m.limits = cutter.take<float>(plan_.group * plan_.columns);
      m.weights = cutter.take<float>(kKeyBlock * plan_.columns);
      m.entries = cutter.take<const void*>(2 * kKeyBlock);
      if (memory != nullptr) return m;
      memory = launch_.scratch(worker, cutter.used());
    }
  }

  void pack_queries(const Unit& unit, const WorkerMemory& m) const {
    const auto factor = static_cast<float>(args_.scale * std::numbers::log2e);
    for (int64_t i = 0; i < unit.tiles; ++i) {
      float* queries = m.queries + i * width_ * plan_.columns;
      float* limits = m.limits + i * plan_.columns;
      int64_t filled = 0;
      if ((unit.first_tile + i + 1) * plan_.columns > unit.row->count * heads_) {
        std::memset(queries, 0, static_cast<size_t>(width_ * plan_.columns) * sizeof(float));
      }
      each_run(*unit.row, unit.first_tile + i, [&](int64_t c, int64_t count, int64_t token, int64_t head) {
        const float* q = args_.q.row<float>(unit.row->first + token) + head * args_.q.stride[1];
        kernels_.pack(q, args_.q.stride[1], count, width_, factor, queries + c, plan_.columns);
        filled = c + count;
        std::fill(limits + c, limits + filled, static_cast<float>(unit.row->start + token));
      });
      std::fill(limits + filled, limits + plan_.columns, limits[filled - 1]);
    }
  }

  // One split of one unit, from nothing.
  void attend(int64_t index, int worker) {
    const Unit& unit = units_[items_[index].unit];
    const AttentionRow& row = *unit.row;
    const WorkerMemory m = cut_worker(worker);
    pack_queries(unit, m);
    for (int64_t i = 0; i < unit.tiles; ++i) {
      const Tile state = tile(states_, index, i);
      std::fill(state.tops, state.tops + plan_.columns, kLowest);
      std::fill(state.tops + plan_.columns, state.tops + 2 * plan_.columns, 0.0F);
      std::memset(state.sums, 0, static_cast<size_t>(args_.latent * plan_.columns) * sizeof(float));
    }
    const int64_t begin = items_[index].split * kMlaSplit;
    // The last place that the unit's last column sees, and one.
    const auto visible = static_cast<int64_t>(m.limits[unit.tiles * plan_.columns - 1]) + 1;
    const int64_t end = std::min(begin + kMlaSplit, visible);
    const void** entries = m.entries;
    const void** next = m.entries + kKeyBlock;
    for (int64_t p = begin; p < std::min(begin + kKeyBlock, end); ++p) entries[p - begin] = entry(row, p);
    for (int64_t place = begin; place < end; place += kKeyBlock) {
      const int64_t count = std::min(kKeyBlock, end - place);
      const int64_t next_count = std::clamp<int64_t>(end - place - kKeyBlock, 0, kKeyBlock);
      for (int64_t i = 0; i < next_count; ++i) next[i] = entry(row, place + kKeyBlock + i);
      read(entries, count, m);
      for (int64_t i = 0; i < unit.tiles; ++i) {
        add_block(m, index, i, place, next, i == 0 ? next_count : 0);
      }
      std::swap(entries, next);
    }
    for (int64_t i = 0; i < unit.tiles; ++i) {
      float* tops = tile(states_, index, i).tops;
      for (int64_t p = 1; p < parts_; ++p) {
        std::memcpy(tops + p * 2 * plan_.columns, tops,
                    static_cast<size_t>(2 * plan_.columns) * sizeof(float));
      }
    }
  }

  void read(const void* const* entries, int64_t count, const WorkerMemory& m) const {
    if (args_.cache.dtype == device::DType::kBF16) {
      kernels_.read_entries(entries, count, width_, args_.latent, m.keys, m.values);
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(m.keys + i * width_, entries[i], static_cast<size_t>(width_) * sizeof(float));
    }
  }

  void add_block(const WorkerMemory& m, int64_t index, int64_t i, int64_t place, const void* const* next,
                 int64_t next_count) const {
    FlashBlock block;
    block.columns = plan_.columns;
    block.queries = m.queries + i * width_ * plan_.columns;
    block.limits = m.limits + i * plan_.columns;
    const auto first_limit = static_cast<int64_t>(block.limits[0]);
    const auto last_limit = static_cast<int64_t>(block.limits[plan_.columns - 1]);
    if (place > last_limit) return;
    block.place = place;
    block.count = std::min(kKeyBlock, last_limit + 1 - place);
    block.masked = place + block.count - 1 > first_limit;
    block.keys = m.keys;
    block.key_words = kernels_.pairs ? width_ / 2 : width_;
    block.values = kernels_.pairs ? m.values : m.keys;
    block.value_stride = kernels_.pairs ? args_.latent : width_;
    block.value_width = args_.latent;
    block.weights = m.weights;
    block.state = part(tile(states_, index, i), 0);
    block.prefetch = next;
    block.prefetches = next_count;
    block.prefetch_bytes = width_ * device::size_of(args_.cache.dtype);
    kernels_.block(block);
  }

  // Merges the wave's partial results, which belong to units `first` to `last`, in order of place; writes out
  // the units that are complete and carries the last one's state into the next wave when it is not.
  void merge_wave(int64_t first, int64_t last, int64_t done, int64_t count) {
    const int64_t pieces = plan_.group * parts_;
    const auto merge = [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t unit = first + i / pieces;
        if (i % pieces / parts_ >= units_[unit].tiles) continue;
        merge_piece(unit, i % pieces / parts_, i % parts_, done, count);
      }
    };
    launch_.pool().parallel_for((last - first + 1) * pieces, 1, std::ref(merge));
    const Unit& unit = units_[last];
    if (done + count < unit.first_item + unit.splits && done <= unit.first_item) {
      std::memcpy(carry_, tile(states_, unit.first_item - done, 0).tops,
                  static_cast<size_t>(plan_.group * tile_floats_) * sizeof(float));
    }
  }

  void merge_piece(int64_t index, int64_t tile_index, int64_t part_index, int64_t done, int64_t count) const {
    const Unit& unit = units_[index];
    const int64_t begin = std::max<int64_t>(unit.first_item - done, 0);
    const int64_t end = std::min(unit.first_item + unit.splits - done, count);
    if (begin >= end) return;
    const int64_t value_begin = part_index * kMergePart;
    const int64_t values = std::min(kMergePart, args_.latent - value_begin);
    // A unit that began in an earlier wave has its state so far in carry_, else in its first split's slot.
    const bool carried = unit.first_item < done;
    const FlashState state =
        part(carried ? tile(carry_, 0, tile_index) : tile(states_, begin, tile_index), part_index);
    for (int64_t i = carried ? begin : begin + 1; i < end; ++i) {
      kernels_.merge(state, part(tile(states_, i, tile_index), part_index), values, plan_.columns);
    }
    if (unit.first_item + unit.splits - done > count) return;
    kernels_.normalise(state, values, plan_.columns);
    each_run(*unit.row, unit.first_tile + tile_index,
             [&](int64_t c, int64_t run, int64_t token, int64_t head) {
               float* out =
                   args_.out.row<float>(unit.row->first + token) + head * args_.out.stride[1] + value_begin;
               kernels_.transpose(state.sums + c, plan_.columns, values, run, 1.0F, out, args_.out.stride[1]);
             });
  }

  device::Launch& launch_;
  const MlaDecodeArgs& args_;
  const FlashKernels& kernels_;
  const int64_t heads_, width_, parts_;
  const MlaDecodePlan plan_;
  const int64_t tile_floats_;
  Unit* units_ = nullptr;
  Item* items_ = nullptr;
  float* carry_ = nullptr;   // [group] tiles
  float* states_ = nullptr;  // [wave][group] tiles
};

}  // namespace

void mla_decode_blocked(device::Launch& launch, const MlaDecodeArgs& args, const FlashKernels& kernels) {
  MlaDecode(launch, args, kernels).run();
}

}  // namespace fathom::ops

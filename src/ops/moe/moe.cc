// Grouped expert products: three regions for the threads, whatever the number of experts. In each, pieces of
// (expert, panels) are taken by the threads as they become free. The shared experts' pieces are spread among
// them.
#include "ops/moe/moe.h"

#include <algorithm>
#include <atomic>
#include <functional>

#include "ops/linear/rows.h"
#include "ops/moe/check.h"
#include "ops/moe/combine.h"
#include "ops/moe/plan.h"
#include "ops/swiglu/swiglu.h"

namespace fathom::ops {
namespace {

using device::Isa;
using device::Target;
using device::Tensor;

// Bounds the scratch memory of a call: tokens beyond it are taken in turns.
constexpr int64_t kScratchBytes = int64_t{256} << 20;
constexpr int64_t kPiecesPerThread = 16;

// Hands out aligned pieces of one block of scratch; first run without it to learn how much is needed.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  T* take(size_t bytes) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(bytes, size_t{64});
    return reinterpret_cast<T*>(piece);
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

// One call on tokens that fit the scratch.
class MoeCall {
 public:
  MoeCall(const Target& target, device::Launch& launch, const MoeArgs& args)
      : launch_(launch),
        args_(args),
        hidden_(args.x.dim(1)),
        inner_(args.down[0].k),
        up_kernel_(*choose_panel_kernel(target, args.gate_up[0].dtype, args.gate_up[0].compute)),
        down_kernel_(*choose_panel_kernel(target, args.down[0].dtype, args.down[0].compute)),
        swiglu_(choose_swiglu_row(target)) {
    if (args.shared_gate_up == nullptr) return;
    shared_inner_ = args.shared_down->k;
    shared_up_kernel_ = choose_panel_kernel(target, args.shared_gate_up->dtype, args.shared_gate_up->compute);
    shared_down_kernel_ = choose_panel_kernel(target, args.shared_down->dtype, args.shared_down->compute);
  }

  // Scratch bytes of one pair of token and expert.
  int64_t bytes_per_pair() const {
    return 4 * (prepared_units(up_kernel_, hidden_) + prepared_units(down_kernel_, inner_) + out_stride());
  }

  void run() {
    const int64_t pairs = args_.x.dim(0) * args_.ids.dim(1);
    const auto experts = static_cast<int64_t>(args_.gate_up.size());
    Carver size(nullptr);
    carve(size, pairs, experts);
    Carver memory(launch_.shared_scratch(size.used()));
    std::byte* plan_memory = carve(memory, pairs, experts);
    plan_ = plan_moe(args_.ids, experts, up_kernel_, plan_memory);
    gather();
    multiply_up();
    multiply_down();
    combine();
  }

 private:
  // Rows of gate_up's outputs, later of down's.
  int64_t out_stride() const { return round_up(std::max(2 * inner_, hidden_), int64_t{16}) + 16; }
  int64_t shared_stride() const { return round_up(2 * shared_inner_, int64_t{16}) + 16; }

  std::byte* carve(Carver& memory, int64_t pairs, int64_t experts) {
    const int64_t rows = most_prepared_rows(up_kernel_, pairs, experts);
    x_ = memory.take<float>(static_cast<size_t>(rows * prepared_units(up_kernel_, hidden_)) * sizeof(float));
    act_ =
        memory.take<float>(static_cast<size_t>(rows * prepared_units(down_kernel_, inner_)) * sizeof(float));
    out_ = memory.take<float>(static_cast<size_t>(pairs * out_stride()) * sizeof(float));
    if (shared_up_kernel_ != nullptr) {
      const int64_t tokens = args_.x.dim(0);
      shared_x_ = memory.take<float>(prepared_bytes(*shared_up_kernel_, tokens, hidden_));
      shared_act_ = memory.take<float>(prepared_bytes(*shared_down_kernel_, tokens, shared_inner_));
      shared_out_ = memory.take<float>(static_cast<size_t>(tokens * shared_stride()) * sizeof(float));
    }
    left_ = memory.take<int32_t>(static_cast<size_t>(experts) * sizeof(int32_t));
    return memory.take<std::byte>(static_cast<size_t>(MoePlan::bytes(pairs, experts)));
  }

  PreparedRows rows_of(const PanelKernel& kernel, const float* all, int64_t k, const ExpertRows& e) const {
    return {all + e.prepared_first * prepared_units(kernel, k), kernel.block_rows(e.rows)};
  }
  bool stays_in_place(const ExpertRows& e) const {
    return takes_as_it_is(up_kernel_, args_.gate_up[0].dtype, e.rows, hidden_);
  }

  void gather() {
    const auto prepare = [&](int64_t begin, int64_t end, int /*worker*/) {
      for (int64_t i = begin; i < end; ++i) {
        if (i == plan_.active) {
          gather_shared();
          continue;
        }
        const ExpertRows& e = plan_.experts[i];
        if (stays_in_place(e)) continue;
        float* out = x_ + e.prepared_first * prepared_units(up_kernel_, hidden_);
        for (int64_t r = 0; r < e.rows; ++r) {
          prepare_row(up_kernel_, args_.x.row<const float>(plan_.token_of[e.first + r]), hidden_, r,
                      up_kernel_.block_rows(e.rows), out);
        }
      }
    };
    // Waking the others pays from some tens of microseconds on.
    const bool alone = plan_.pairs * hidden_ <= 65536;
    const int64_t items = plan_.active + (shared_up_kernel_ != nullptr ? 1 : 0);
    launch_.pool().parallel_for(items, alone ? std::max(items, int64_t{1}) : 1, std::ref(prepare));
  }

  void gather_shared() {
    const int64_t tokens = args_.x.dim(0);
    for (int64_t t = 0; t < tokens; ++t) {
      prepare_row(*shared_up_kernel_, args_.x.row<const float>(t), hidden_, t,
                  shared_up_kernel_->block_rows(tokens), shared_x_);
    }
  }

  // piece(expert, first panel, panels, worker) over all experts' panels, and shared(first panel, panels,
  // worker) over those of the shared ones. Evenly spread, so that while one thread computes for all tokens,
  // the others read from memory for few.
  template <class Piece, class SharedPiece>
  void for_pieces(int64_t panels, int64_t shared_panels, const Piece& piece, const SharedPiece& shared) {
    const PanelSplit mine = split(panels);
    const PanelSplit all = split(shared_panels);
    const int64_t pieces = plan_.active * mine.chunks + all.chunks;
    const auto body = [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t before = i * all.chunks / pieces;
        if ((i + 1) * all.chunks / pieces > before) {
          const int64_t first = before * all.chunk;
          shared(first, std::min(all.chunk, shared_panels - first), worker);
        } else {
          const int64_t first = (i - before) % mine.chunks * mine.chunk;
          piece((i - before) / mine.chunks, first, std::min(mine.chunk, panels - first), worker);
        }
      }
    };
    launch_.pool().parallel_for(pieces, 1, std::ref(body));
  }

  PanelSplit split(int64_t panels) const {
    if (panels == 0) return {};
    return split_panels(panels, plan_.active, kPiecesPerThread * launch_.pool().size());
  }

  static int64_t panels_of(const PackedLinear* weight) {
    return weight != nullptr ? weight->n_padded / kPanelColumns : 0;
  }

  // Some panels of a shared weight for all tokens.
  void multiply_shared(const PanelKernel& kernel, const PackedLinear& weight, const float* a, float* y,
                       int64_t y_stride, bool accumulate, int64_t first_panel, int64_t panels, int worker) {
    const int64_t tokens = args_.x.dim(0);
    PanelProduct p =
        narrow(product_of(kernel, weight, {a, kernel.block_rows(tokens)}, tokens, y, y_stride, accumulate),
               first_panel, panels);
    p.scratch = worker_scratch(worker);
    kernel.multiply(p);
  }

  // The kernels' own, then a row to activate.
  std::byte* worker_scratch(int worker) {
    const int64_t row = std::max(inner_, shared_inner_);
    return launch_.scratch(worker, kPanelScratchBytes + static_cast<size_t>(row) * sizeof(float));
  }

  void multiply(const PanelKernel& kernel, const PackedLinear& weight, PreparedRows a, const ExpertRows& e,
                int64_t first_panel, int64_t panels, int worker) {
    PanelProduct p =
        narrow(product_of(kernel, weight, a, e.rows, out_ + e.first * out_stride(), out_stride(), false),
               first_panel, panels);
    p.scratch = worker_scratch(worker);
    kernel.multiply(p);
  }

  void multiply_up() {
    const int64_t panels = args_.gate_up[0].n_padded / kPanelColumns;
    std::fill(left_, left_ + plan_.active, static_cast<int32_t>(split(panels).chunks));
    const int64_t shared_panels = panels_of(args_.shared_gate_up);
    int64_t shared_left = split(shared_panels).chunks;
    const auto piece = [&](int64_t i, int64_t first, int64_t count, int worker) {
      const ExpertRows& e = plan_.experts[i];
      PreparedRows a = rows_of(up_kernel_, x_, hidden_, e);
      if (stays_in_place(e)) a.data = args_.x.row<const float>(plan_.token_of[e.first]);
      multiply(up_kernel_, args_.gate_up[static_cast<size_t>(e.expert)], a, e, first, count, worker);
      // Who finishes an expert's last piece activates its rows while they are in a cache.
      if (std::atomic_ref(left_[i]).fetch_sub(1, std::memory_order_acq_rel) == 1) activate(e, worker);
    };
    for_pieces(panels, shared_panels, piece, [&](int64_t first, int64_t count, int worker) {
      multiply_shared(*shared_up_kernel_, *args_.shared_gate_up, shared_x_, shared_out_, shared_stride(),
                      false, first, count, worker);
      if (std::atomic_ref(shared_left).fetch_sub(1, std::memory_order_acq_rel) == 1) activate_shared(worker);
    });
  }

  void activate_shared(int worker) {
    auto* plain = reinterpret_cast<float*>(worker_scratch(worker) + kPanelScratchBytes);
    const int64_t tokens = args_.x.dim(0);
    for (int64_t t = 0; t < tokens; ++t) {
      const float* gate = shared_out_ + t * shared_stride();
      swiglu_(gate, gate + shared_inner_, plain, shared_inner_);
      prepare_row(*shared_down_kernel_, plain, shared_inner_, t, shared_down_kernel_->block_rows(tokens),
                  shared_act_);
    }
  }

  void activate(const ExpertRows& e, int worker) {
    auto* plain = reinterpret_cast<float*>(worker_scratch(worker) + kPanelScratchBytes);
    float* out = act_ + e.prepared_first * prepared_units(down_kernel_, inner_);
    const bool as_it_is = takes_as_it_is(down_kernel_, args_.down[0].dtype, e.rows, inner_);
    for (int64_t r = 0; r < e.rows; ++r) {
      const float* gate = out_ + (e.first + r) * out_stride();
      swiglu_(gate, gate + inner_, as_it_is ? out : plain, inner_);
      if (!as_it_is) prepare_row(down_kernel_, plain, inner_, r, down_kernel_.block_rows(e.rows), out);
    }
  }

  void multiply_down() {
    const int64_t panels = args_.down[0].n_padded / kPanelColumns;
    const auto piece = [&](int64_t i, int64_t first, int64_t count, int worker) {
      const ExpertRows& e = plan_.experts[i];
      multiply(down_kernel_, args_.down[static_cast<size_t>(e.expert)],
               rows_of(down_kernel_, act_, inner_, e), e, first, count, worker);
    };
    // What the shared experts give goes straight to y; the others are added to it.
    for_pieces(panels, panels_of(args_.shared_down), piece, [&](int64_t first, int64_t count, int worker) {
      multiply_shared(*shared_down_kernel_, *args_.shared_down, shared_act_, args_.y.f32(), args_.y.stride[0],
                      args_.accumulate, first, count, worker);
    });
  }

  void combine() {
    const int64_t choices = args_.ids.dim(1);
    const auto body = [&](int64_t begin, int64_t end, int /*worker*/) {
      for (int64_t t = begin; t < end; ++t) {
        combine_row_avx2({out_, out_stride(), plan_.row_of + t * choices, args_.weights.row<const float>(t),
                          choices, args_.y.row<float>(t), hidden_,
                          args_.accumulate || shared_up_kernel_ != nullptr});
      }
    };
    const int64_t grain = std::max(int64_t{65536} / (hidden_ * choices), int64_t{1});
    launch_.pool().parallel_for(args_.x.dim(0), grain, std::ref(body));
  }

  device::Launch& launch_;
  const MoeArgs& args_;
  int64_t hidden_, inner_;
  const PanelKernel& up_kernel_;
  const PanelKernel& down_kernel_;
  SwigluRow swiglu_;
  MoePlan plan_;
  float* x_ = nullptr;       // the experts' gathered rows, prepared for gate_up
  float* act_ = nullptr;     // the same after activation, prepared for down
  float* out_ = nullptr;     // [pairs, out_stride]
  int32_t* left_ = nullptr;  // [active] pieces of gate_up to go
  // The shared experts': null and 0 without them.
  const PanelKernel* shared_up_kernel_ = nullptr;
  const PanelKernel* shared_down_kernel_ = nullptr;
  int64_t shared_inner_ = 0;
  float* shared_x_ = nullptr;    // all tokens, prepared for gate_up
  float* shared_act_ = nullptr;  // the same after activation, prepared for down
  float* shared_out_ = nullptr;  // [T, shared_stride]
};

void run_moe(const Target& target, device::Launch& launch, const MoeArgs& args) {
  check_moe(args);
  const int64_t tokens = args.x.dim(0);
  const int64_t bytes_per_token = MoeCall(target, launch, args).bytes_per_pair() * args.ids.dim(1);
  const int64_t turn = std::max(kScratchBytes / bytes_per_token, int64_t{64});
  for (int64_t t = 0; t < tokens; t += turn) {
    const int64_t end = std::min(t + turn, tokens);
    MoeArgs part = args;
    part.x = args.x.rows(t, end);
    part.ids = args.ids.rows(t, end);
    part.weights = args.weights.rows(t, end);
    part.y = args.y.rows(t, end);
    MoeCall(target, launch, part).run();
  }
}

template <Isa kIsa>
void moe_with(device::Launch& launch, const MoeArgs& args) {
  run_moe({device::DeviceKind::kCpu, kIsa}, launch, args);
}

}  // namespace

MoeFunction choose_moe(const Target& target, device::DType dtype, Compute compute) {
  if (choose_panel_kernel(target, dtype, compute) == nullptr) return moe_reference;
  switch (target.isa) {
    case Isa::kAmx:
      return moe_with<Isa::kAmx>;
    case Isa::kAvx512Bf16:
      return moe_with<Isa::kAvx512Bf16>;
    case Isa::kAvx512:
      return moe_with<Isa::kAvx512>;
    default:
      return moe_with<Isa::kAvx2>;
  }
}

}  // namespace fathom::ops

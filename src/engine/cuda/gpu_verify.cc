#include "engine/cuda/gpu_verify.h"

#include <algorithm>
#include <functional>
#include <future>
#include <numeric>

#include "base/math.h"
#include "engine/cuda/gpu_engine.h"
#include "engine/cuda/step_input.h"

namespace fathom::engine::cuda {
namespace {

// One slot on pages 0, 1, 2, ... of one rank. All calls on one thread at a time, with its GPU current.
class Sequence final : public VerifyModel {
 public:
  static Result<std::unique_ptr<Sequence>> make(const EngineOptions& options, int64_t places, int gpu_index,
                                                std::unique_ptr<dist::cuda::GpuGroup> group) {
    std::unique_ptr<Sequence> made(
        new Sequence(std::max(1, options.threads / options.split.world()), std::move(group)));
    FATHOM_ASSIGN(auto gpu, device::cuda::open_gpu(gpu_index));
    gpu.shared = options.ranks_per_gpu > 1;
    FATHOM_ASSIGN(made->stream_, device::cuda::Stream::create(gpu));
    model::cuda::LoadOptions load = load_options(options);
    load.group = made->group_.get();
    load.max_tokens = options.load.max_tokens;
    load.max_logit_rows = options.load.max_logit_rows;
    load.max_context = options.load.max_context;
    FATHOM_ASSIGN(made->model_, model::cuda::Model::build(options.config, load, *made->stream_, made->pool_));
    const int64_t pages = ceil_div<int64_t>(places, options.page_size);
    FATHOM_ASSIGN(made->cache_,
                  model::cuda::KvPool::allocate(made->model_->kv_layout(), pages, options.page_size));
    std::vector<int32_t> table(static_cast<size_t>(pages));
    std::iota(table.begin(), table.end(), 0);
    FATHOM_ASSIGN(made->table_, device::cuda::DeviceBuffer::allocate(table.size() * sizeof(int32_t)));
    FATHOM_TRY(device::cuda::check(
        cudaMemcpy(made->table_.data(), table.data(), table.size() * sizeof(int32_t), cudaMemcpyHostToDevice),
        "upload"));
    const auto input_bytes = static_cast<size_t>(
        StepLayout(load.max_tokens, load.max_logit_rows).fixed_bytes + places * 64 + 4096);
    FATHOM_ASSIGN(made->staging_, device::cuda::PinnedBuffer::allocate(input_bytes));
    FATHOM_ASSIGN(made->input_, device::cuda::DeviceBuffer::allocate(input_bytes));
    FATHOM_ASSIGN(made->logits_,
                  device::cuda::PinnedBuffer::allocate(
                      static_cast<size_t>(load.max_logit_rows * options.config.vocab_size) * sizeof(float)));
    if (made->group_ != nullptr) FATHOM_TRY(made->group_->host().barrier());
    return made;
  }

  void reset() override { length_ = 0; }

  Result<device::Tensor> forward(const std::vector<int32_t>& tokens, int64_t wanted, bool decode) override {
    const auto count = static_cast<int32_t>(tokens.size());
    StepInput input;
    input.ids = tokens;
    for (int32_t i = 0; i < count; ++i) {
      input.positions.push_back(length_ + i);
      input.places.push_back(length_ + i);  // pages in order: the place is the position
      input.slots.push_back(0);
      if (i >= count - wanted) input.logit_rows.push_back(i);
    }
    if (!decode) {
      input.extend_rows.push_back({0, count, length_, 0, 0, 0, 0, 0});
      input.extend_tokens = count;
    }
    const StepLayout layout(count, wanted);
    model::cuda::GpuBatch batch;
    batch.passes = model::cuda::plan_passes(input.extend_rows);
    const SlotUpdate* updates = nullptr;
    auto* device = static_cast<std::byte*>(input_.data());
    const int64_t bytes =
        input.write(layout, static_cast<std::byte*>(staging_.data()), device, batch.passes, &updates);
    stream_->copy(device, staging_.data(), static_cast<size_t>(bytes));
    batch.view.tokens = count;
    batch.view.positions = reinterpret_cast<const int32_t*>(device + layout.positions);
    batch.view.places = reinterpret_cast<const int64_t*>(device + layout.places);
    batch.view.slots = reinterpret_cast<const int32_t*>(device + layout.slots);
    batch.view.block_tables = static_cast<const int32_t*>(table_.data());
    batch.view.table_stride = static_cast<int64_t>(table_.size() / sizeof(int32_t));
    batch.token_ids = reinterpret_cast<const int32_t*>(device + layout.ids);
    batch.extend_tokens = input.extend_tokens;
    batch.logit_rows = reinterpret_cast<const int32_t*>(device + layout.rows);
    batch.logit_count = wanted;
    batch.cache = &cache_;
    const float* logits = model_->forward(*stream_, batch);
    const int64_t vocab = model_->config().vocab_size;
    stream_->copy(logits_.data(), logits, static_cast<size_t>(wanted * vocab) * sizeof(float));
    FATHOM_TRY(stream_->synchronize());
    if (group_ != nullptr) FATHOM_TRY(group_->state());
    length_ += count;
    return device::Tensor(logits_.data(), device::DType::kF32, {wanted, vocab});
  }

 private:
  Sequence(int32_t threads, std::unique_ptr<dist::cuda::GpuGroup> group)
      : pool_(threads, available_cpus()), group_(std::move(group)) {}

  ThreadPool pool_;
  std::unique_ptr<dist::cuda::GpuGroup> group_;  // or none: the only rank
  std::unique_ptr<device::cuda::Stream> stream_;
  std::unique_ptr<model::cuda::Model> model_;
  model::cuda::KvPool cache_;
  device::cuda::DeviceBuffer table_, input_;
  device::cuda::PinnedBuffer staging_, logits_;
  int32_t length_ = 0;
};

// The same on every rank, each on a thread of its own for the time of a call.
class RankSequences final : public VerifyModel {
 public:
  static Result<std::unique_ptr<VerifyModel>> make(const EngineOptions& options, int64_t places) {
    dist::cuda::GpuGroupOptions wanted;
    wanted.timeout = options.dist_timeout;
    for (int r = 0; r < options.split.world(); ++r) wanted.gpus.push_back(options.gpu_of(r));
    wanted.posts = options.split.pp == 1;  // parts of the world have their own
    FATHOM_ASSIGN(auto groups, dist::cuda::GpuGroup::create(wanted));
    std::unique_ptr<RankSequences> made(new RankSequences());
    made->gpus_ = wanted.gpus;
    made->ranks_.resize(groups.size());
    made->answers_ = static_cast<size_t>((options.split.pp - 1) * options.split.tp);
    FATHOM_TRY(made->everywhere([&](size_t r) -> Result<void> {
      // A rank that fails leaves its group, and the others learn of it.
      FATHOM_ASSIGN(made->ranks_[r], Sequence::make(options, places, wanted.gpus[r], std::move(groups[r])));
      return {};
    }));
    return std::unique_ptr<VerifyModel>(std::move(made));
  }

  void reset() override {
    for (auto& rank : ranks_) rank->reset();
  }

  Result<device::Tensor> forward(const std::vector<int32_t>& tokens, int64_t wanted, bool decode) override {
    device::Tensor logits;
    FATHOM_TRY(everywhere([&](size_t r) -> Result<void> {
      FATHOM_TRY(device::cuda::open_gpu(gpus_[r]));
      FATHOM_ASSIGN(const auto mine, ranks_[r]->forward(tokens, wanted, decode));
      if (r == answers_) logits = mine;
      return {};
    }));
    return logits;
  }

 private:
  RankSequences() = default;

  Result<void> everywhere(const std::function<Result<void>(size_t)>& call) {
    std::vector<std::future<Result<void>>> calls;
    for (size_t r = 0; r < ranks_.size(); ++r) calls.push_back(std::async(std::launch::async, call, r));
    Result<void> outcome;
    for (auto& rank : calls) {
      auto theirs = rank.get();
      if (outcome.ok()) outcome = std::move(theirs);
    }
    return outcome;
  }

  std::vector<int> gpus_;
  std::vector<std::unique_ptr<Sequence>> ranks_;
  size_t answers_ = 0;  // the first rank of the last stage
};

}  // namespace

Result<std::unique_ptr<VerifyModel>> GpuVerifyModel::make(const EngineOptions& options, int64_t places) {
  if (options.split.world() > 1) return RankSequences::make(options, places);
  FATHOM_ASSIGN(auto only, Sequence::make(options, places, options.first_gpu, nullptr));
  return std::unique_ptr<VerifyModel>(std::move(only));
}

}  // namespace fathom::engine::cuda

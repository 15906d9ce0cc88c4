#include "engine/cuda/gpu_verify.h"

#include <numeric>

#include "base/math.h"
#include "engine/cuda/gpu_engine.h"
#include "engine/cuda/step_input.h"

namespace fathom::engine::cuda {
namespace {

// One slot on pages 0, 1, 2, ...
class Sequence final : public VerifyModel {
 public:
  static Result<std::unique_ptr<VerifyModel>> make(const EngineOptions& options, int64_t places) {
    std::unique_ptr<Sequence> made(new Sequence(options.threads));
    FATHOM_ASSIGN(const auto gpu, device::cuda::open_gpu(0));
    FATHOM_ASSIGN(made->stream_, device::cuda::Stream::create(gpu));
    model::cuda::LoadOptions load = load_options(options);
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
    return std::unique_ptr<VerifyModel>(std::move(made));
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
    length_ += count;
    return device::Tensor(logits_.data(), device::DType::kF32, {wanted, vocab});
  }

 private:
  explicit Sequence(int32_t threads) : pool_(threads, available_cpus()) {}

  ThreadPool pool_;
  std::unique_ptr<device::cuda::Stream> stream_;
  std::unique_ptr<model::cuda::Model> model_;
  model::cuda::KvPool cache_;
  device::cuda::DeviceBuffer table_, input_;
  device::cuda::PinnedBuffer staging_, logits_;
  int32_t length_ = 0;
};

}  // namespace

Result<std::unique_ptr<VerifyModel>> GpuVerifyModel::make(const EngineOptions& options, int64_t places) {
  return Sequence::make(options, places);
}

}  // namespace fathom::engine::cuda

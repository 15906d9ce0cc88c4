// How an engine of a GPU starts: weights, memory, graphs.
#include <algorithm>

#include "base/clock.h"
#include "base/math.h"
#include "base/thread_start.h"
#include "engine/cuda/gpu_engine.h"
#include "model/memory.h"

namespace fathom::engine::cuda {

using device::cuda::DeviceBuffer;
using device::cuda::PinnedBuffer;

model::cuda::LoadOptions load_options(const EngineOptions& options) {
  model::cuda::LoadOptions load;
  load.checkpoint = options.load.checkpoint;
  load.seed = options.load.seed;
  load.compute = options.load.compute;
  load.kv_dtype = options.load.kv_dtype;
  load.mla = options.load.mla;
  load.fp8_x = options.fp8_activations;
  load.max_tokens = options.step_tokens();
  load.max_logit_rows = options.decode_tokens();
  load.kept_states = options.config.draft_layers > 0 ? options.decode_tokens() : 0;
  load.max_context = options.load.max_context > 0 ? options.load.max_context : options.config.max_positions;
  load.progress = options.load.progress;
  load.split = options.split;
  load.moves_experts = options.rebalance_passes > 0;
  return load;
}

namespace {

Result<void> check_room(const EngineOptions& options, const device::cuda::Gpu& gpu, int64_t free) {
  model::MemoryOptions wanted;
  wanted.compute = options.load.compute;
  wanted.mla = options.load.mla;
  wanted.draft_copies = true;
  FATHOM_ASSIGN(wanted.shard, model::make_shard(options.config, options.split, 0));  // the largest
  const int64_t weights = model::plan_memory(options.config, wanted).weight_bytes;
  const int64_t work = model::cuda::working_bytes(options.config, load_options(options), gpu);
  return model::check_memory(weights, work, free, gpu.name);
}

}  // namespace

Result<void> GpuEngine::run(const EngineOptions& options) {
  const int64_t start_ns = steady_clock().now_ns();
  FATHOM_TRY(load(options));
  FATHOM_TRY(allocate_step_memory());
  report_.load_seconds = seconds_since(start_ns);
  FATHOM_TRY(gather_ranks());
  FATHOM_TRY(capture_graphs(options.graph_sizes));
  FATHOM_TRY(gather_ranks());
  launcher_ = std::thread([this] {
    begin_thread("gpu launcher");
    launch_steps();
  });
  answerer_ = std::thread([this] {
    begin_thread("gpu answerer");
    answer_steps();
  });
  return {};
}

Result<void> GpuEngine::load(const EngineOptions& options) {
  FATHOM_ASSIGN(auto gpu, device::cuda::open_gpu(gpu_));
  gpu.shared = options.ranks_per_gpu > 1;
  FATHOM_ASSIGN(stream_, device::cuda::Stream::create(gpu));
  FATHOM_ASSIGN(const auto before, device::cuda::memory_info());

  FATHOM_TRY(check_room(options, gpu, before.free));
  model::cuda::LoadOptions load = load_options(options);
  load.group = group_.get();
  FATHOM_ASSIGN(model_, model::cuda::Model::build(options.config, load, *stream_, *pool_));
  report_.load = model_->report();
  report_.kv_layout = model_->kv_layout();
  report_.device = fmt::format("cuda, {}{} (sm_{}{}, {:.0f} GB)",
                               group_ != nullptr ? fmt::format("{} of ", group_->size()) : "", gpu.name,
                               gpu.major, gpu.minor, static_cast<double>(gpu.total_bytes) * 1e-9);

  FATHOM_ASSIGN(const auto after, device::cuda::memory_info());
  FATHOM_ASSIGN(report_.pool, size_pool(pool_request(options, before.free, before.free - after.free,
                                                     report_.kv_layout.bytes_per_token())));
  if (group_ != nullptr) {  // as many pages everywhere
    std::vector<int64_t> pages(static_cast<size_t>(group_->size()));
    const std::vector<int64_t> sizes(pages.size(), sizeof(int64_t));
    FATHOM_TRY(group_->host().all_gather(&report_.pool.pages, sizes, pages.data()));
    const int64_t fewest = *std::min_element(pages.begin(), pages.end());
    report_.pool.bytes = report_.pool.bytes / report_.pool.pages * fewest;
    report_.pool.pages = fewest;
  }
  FATHOM_ASSIGN(cache_,
                model::cuda::KvPool::allocate(report_.kv_layout, report_.pool.pages, options.page_size));
  limits_.num_pages = static_cast<int32_t>(report_.pool.pages);
  return {};
}

Result<void> GpuEngine::allocate_step_memory() {
  const int64_t slots = limits_.max_slots;
  // Rows of logits that are looked at at once: a row's choices, and those of its branches in a draft.
  const int64_t choices = slots * std::max(widest_, shape_.branches);
  const int64_t outputs = slots * kept_;
  sample::cuda::GpuSamplerSizes sizes;
  sizes.slots = limits_.max_slots;
  sizes.vocab = limits_.vocab_size;
  sizes.rows = choices;
  FATHOM_ASSIGN(sampler_, sample::cuda::GpuSampler::create(*stream_, arena_, sizes));
  brief_places_ = model_->brief_context(stream_->gpu(), 1);
  tables_.stride = ceil_div(limits_.max_context, limits_.page_size);
  FATHOM_ASSIGN(tables_.block_tables, arena_.allocate_array<int32_t>(slots * tables_.stride));
  // Together, so that they are handed back as one.
  const int64_t kept = round_up<int64_t>(slots, 4);
  FATHOM_ASSIGN(tables_.last_tokens, arena_.allocate_array<int32_t>(kept + choices));
  device_tokens_ = tables_.last_tokens + kept;
  chosen_ = numbers(tables_.last_tokens, kept + choices);
  FATHOM_TRY(model_->share(chosen_));
  FATHOM_ASSIGN(step_slots_, arena_.allocate_array<int32_t>(choices));
  FATHOM_ASSIGN(adjusted_, arena_.allocate_array<float>(slots * limits_.vocab_size));
  FATHOM_ASSIGN(device_logprobs_, DeviceLogprobs::allocate(outputs, arena_));
  FATHOM_ASSIGN(device_masks_, DeviceMasks::allocate(choices, limits_.vocab_size, arena_));
  // Padding tokens look at slot 0.
  stream_->fill(tables_.block_tables, 0, static_cast<size_t>(slots * tables_.stride) * sizeof(int32_t));
  stream_->fill(tables_.last_tokens, 0, static_cast<size_t>(slots) * sizeof(int32_t));
  stream_->fill(device_tokens_, 0xff, static_cast<size_t>(choices) * sizeof(int32_t));

  // The largest step: every token, every slot opened with a full table (prefixes are shared, so their pages
  // count more than once), every row extending.
  const StepLayout layout(limits_.max_step_tokens, choices);
  width_ = widest_;
  const GuessLayout guesses(guess_sizes(slots, limits_.max_step_tokens), layout.fixed_bytes);
  if (trees()) {
    FATHOM_ASSIGN(trees_, TreeMemory::allocate(shape_, slots, limits_.max_step_tokens, arena_));
    FATHOM_TRY(model_->share(tree_tails(limits_.max_step_tokens)));
    FATHOM_TRY(model_->share(tree_choices(slots)));
  }
  const int64_t updates = slots * (tables_.stride + 1) * static_cast<int64_t>(sizeof(SlotUpdate));
  const int64_t stretches =
      slots + ceil_div<int64_t>(slots * limits_.max_context, model::cuda::Model::kPassPlaces);
  const int64_t rows = stretches * static_cast<int64_t>(sizeof(ops::cuda::ExtendRow) + 16);
  // The draft layer sees the named tokens again.
  const int64_t named =
      drafts_layer() ? int64_t{limits_.max_step_tokens} * 24 + rows + slots * (8 + 24 * kept_) : 0;
  const auto bytes = static_cast<size_t>(guesses.end + updates + rows + named + 8192);
  FATHOM_ASSIGN(device_input_, DeviceBuffer::allocate(bytes));
  FATHOM_TRY(model_->share(numbers(device_input_.data(), static_cast<int64_t>(bytes / 4))));
  for (size_t f = 0; f < kFrames; ++f) {
    FATHOM_ASSIGN(frames_[f].input, PinnedBuffer::allocate(bytes));
    FATHOM_ASSIGN(frames_[f].output, StepOutput::allocate(outputs));
    FATHOM_ASSIGN(frames_[f].masks, StepMasks::allocate(choices, limits_.vocab_size));
    FATHOM_ASSIGN(frames_[f].guesses,
                  PinnedBuffer::allocate(static_cast<size_t>(2 * choices) * sizeof(int32_t)));
    FATHOM_ASSIGN(frames_[f].drafted, device::cuda::Event::create());
    FATHOM_ASSIGN(frames_[f].begun, device::cuda::Event::create(true));
    FATHOM_ASSIGN(frames_[f].done, device::cuda::Event::create(true));
    free_.push(size_t{f});
  }
  FATHOM_ASSIGN(prompt_output_, StepOutput::allocate(outputs));
  FATHOM_ASSIGN(origin_, device::cuda::Event::create(true));
  FATHOM_TRY(stream_->synchronize());
  stream_->record(origin_);
  FATHOM_TRY(stream_->synchronize());
  origin_us_ = static_cast<double>(steady_clock().now_ns()) * 1e-3;
  return {};
}

Result<void> GpuEngine::capture_graphs(const std::vector<int32_t>& sizes) {
  if (sizes.empty()) return {};
  const int64_t start_ns = steady_clock().now_ns();
  FATHOM_ASSIGN(const auto before, device::cuda::memory_info());
  graph_rows_.assign(sizes.begin(), sizes.end());
  std::vector<int32_t> widths{widest_};
  if (widest_ > 1) widths.push_back(1);
  // Largest first, and once without a graph: what a first launch sets up is then done.
  for (auto rows = graph_rows_.rbegin(); rows != graph_rows_.rend(); ++rows) {
    for (const int32_t width : widths) {
      width_ = width;
      for (const GraphKind kind :
           {GraphKind::kGreedy, GraphKind::kDraws, GraphKind::kDraft, GraphKind::kForward}) {
        if (kind == GraphKind::kDraft && !drafts_layer()) continue;
        FATHOM_TRY(capture_graph(*rows, kind, false, rows == graph_rows_.rbegin()));
        if (model_->brief_context(stream_->gpu(), *rows * width) > 0)
          FATHOM_TRY(capture_graph(*rows, kind, true, false));
      }
    }
  }
  FATHOM_TRY(stream_->synchronize());
  FATHOM_ASSIGN(const auto after, device::cuda::memory_info());
  report_.graph_seconds = seconds_since(start_ns);
  report_.graph_bytes = before.free - after.free;
  return {};
}

Result<void> GpuEngine::capture_graph(int64_t rows, GraphKind kind, bool brief, bool first) {
  tables_.most_places = brief ? brief_places_ : 0;
  StepLayout layout(rows * width_, rows * width_);
  const GuessLayout guesses(guess_sizes(rows, layout.tokens), layout.fixed_bytes);
  layout.fixed_bytes = guesses.end;
  const auto queue = [&] {
    if (drafts_layer() && kind != GraphKind::kForward)
      draft(layout, guesses, kind != GraphKind::kGreedy, rows);
    if (kind == GraphKind::kDraft) return;
    forward(layout, guesses, {}, 0, layout.tokens);
    if (kind != GraphKind::kForward) choose(layout, guesses, kind == GraphKind::kDraws, false);
  };
  if (first) {
    input_.clear();
    guesses_.clear();
    lay_out_rows(rows, layout.tokens);
    std::vector<model::cuda::ExtendPass> passes;
    const SlotUpdate* none = nullptr;
    auto* device = static_cast<std::byte*>(device_input_.data());
    auto* pinned = static_cast<std::byte*>(frames_[0].input.data());
    const int64_t bytes = input_.write(layout, pinned, device, passes, &none);
    guesses_.write(guesses, pinned);
    stream_->copy(device, pinned, static_cast<size_t>(bytes));
    FATHOM_TRY(gather_ranks());
    queue();
    FATHOM_TRY(with_group(stream_->synchronize()));
    FATHOM_TRY(gather_ranks());
  }
  FATHOM_ASSIGN(auto graph, device::cuda::Graph::capture(*stream_, queue));
  graphs_.emplace(GraphKey{rows, width_, kind, brief}, std::move(graph));
  return {};
}

}  // namespace fathom::engine::cuda

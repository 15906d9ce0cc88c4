#include "engine/layout/layout_plan.h"

#include <algorithm>

#include "base/math.h"
#include "engine/layout/gpu_workspace.h"

namespace fathom::engine {
namespace {

constexpr int64_t kGpuScaleRows = 8;  // ops/linear/README.md

// With the defaults of a GPU where the plan is for one, and on one rank: what is resolved here is the
// model's.
Result<EngineOptions> resolve_for(const Machine& machine, const Settings& given, ModelFacts* facts) {
  Settings settings = given;
  settings.device = "cpu";
  settings.tp_size = settings.dp_size = settings.ep_size = settings.pp_size = 1;
  settings.enable_dp_attention = settings.enable_eplb = false;
  settings.redundant_experts = 0;
  if (machine.gpu) {
    settings.kv_cache_dtype = "auto";
    if (settings.max_running_requests == 0) settings.max_running_requests = kDefaultGpuRunning;
    if (settings.chunked_prefill_size == 0) settings.chunked_prefill_size = kDefaultGpuChunk;
    if (settings.page_size == 0) settings.page_size = kDefaultGpuPage;
  }
  FATHOM_ASSIGN(auto options, resolve(settings, facts));
  if (machine.gpu && given.kv_cache_dtype != "auto") {
    options.load.kv_dtype = given.kv_cache_dtype == "float32"    ? device::DType::kF32
                            : given.kv_cache_dtype == "fp8_e4m3" ? device::DType::kF8E4M3
                            : given.kv_cache_dtype == "fp8_e5m2" ? device::DType::kF8E5M2
                                                                 : device::DType::kBF16;
  }
  return options;
}

Result<void> check_layout(const Layout& layout) {
  if (layout.ranks() % layout.nodes == 0) return {};
  return error(ErrorCode::kInvalidArgument, "--nnodes {}: {} ranks do not divide among so many nodes",
               layout.nodes, layout.ranks());
}

Result<void> apply_format(const WeightFormat& format, model::ModelConfig& config) {
  const std::string name = format.name;
  if (name == "fp8" && config.quantisation != model::Quantisation::kFp8Block) {
    config.quantisation = model::Quantisation::kFp8Block;
  } else if (name != "fp8") {
    config.quantisation = model::Quantisation::kNone;
    config.dtype = device::DType::kBF16;
  }
  return {};
}

}  // namespace

int64_t LayoutPlan::sequences(int64_t length) const {
  const int64_t each = pool_tokens() / round_up<int64_t>(length, std::max<int64_t>(page_size, 1));
  return each * groups();
}

Result<LayoutPlan> plan_layout(const Settings& settings, const LayoutRequest& request) {
  LayoutPlan plan;
  FATHOM_TRY(check_layout(request.layout));
  FATHOM_ASSIGN(EngineOptions options, resolve_for(request.machine, settings, &plan.facts));
  if (request.format != nullptr) FATHOM_TRY(apply_format(*request.format, options.config));
  plan.config = options.config;
  plan.layout = request.layout;
  plan.machine = request.machine;
  plan.format = request.format;
  plan.page_size = options.page_size;
  plan.max_running = options.max_running;

  model::MemoryOptions memory;
  memory.compute = options.load.compute;
  memory.kv_dtype = options.load.kv_dtype;
  memory.mla = options.load.mla;
  memory.draft_copies = request.machine.gpu;
  memory.scale_rows = request.machine.gpu ? kGpuScaleRows : 1;
  memory.max_tokens = options.step_tokens();
  memory.max_logit_rows = options.decode_tokens();
  memory.max_context = plan.facts.context_length;
  const bool reckoned = request.format != nullptr && !request.format->readable;
  const model::Split& split = request.layout.split;
  for (int stage = 0; stage < split.pp; ++stage) {
    FATHOM_ASSIGN(const auto shard, model::make_shard(plan.config, split, stage * split.tp));
    memory.shard = shard;
    auto rank = model::plan_memory(plan.config, memory);
    if (reckoned) reckon(*request.format, rank);
    if (request.machine.gpu) {
      const bool known = shard.whole() && request.machine.workspace_bytes > 0;
      rank.workspace_bytes = known ? request.machine.workspace_bytes : gpu_workspace_bytes(options, shard);
    }
    if (rank.weight_bytes <= plan.memory.weight_bytes) continue;
    plan.memory = std::move(rank);
    plan.stage = stage;
  }
  if (!reckoned) plan.checkpoint_bytes = model::stored_bytes(plan.config);
  const int sharing = request.machine.gpu ? 1 : request.layout.ranks_a_node();  // ranks of one memory
  plan.available_bytes = request.machine.memory_bytes / sharing;

  PoolRequest pool;
  pool.available_bytes = plan.available_bytes;
  pool.weight_bytes = plan.memory.weight_bytes + plan.memory.workspace_bytes;
  pool.bytes_per_token = plan.memory.kv_bytes_per_token;
  pool.page_size = options.page_size;
  pool.max_context = plan.facts.context_length;
  pool.max_running = options.max_running;
  pool.mem_fraction = options.mem_fraction;
  pool.max_total_tokens = options.max_total_tokens;
  plan.pool = size_pool(pool);
  plan.traffic = traffic_of(plan.config, plan.layout,
                            !request.machine.gpu || options.load.compute == ops::Compute::kF32);
  return plan;
}

std::vector<std::string> what_would_fit(const Settings& settings, const LayoutRequest& request) {
  std::vector<std::string> found;
  const auto fits = [&](const LayoutRequest& tried) {
    const auto plan = plan_layout(settings, tried);
    return plan.ok() && plan->fits();
  };
  LayoutRequest more = request;
  const int a_node = request.layout.ranks_a_node();
  for (int factor = 2; factor <= 16; factor *= 2) {
    model::Split& split = more.layout.split;
    split.tp = request.layout.split.tp * factor;
    if (request.layout.split.ep > 1) split.ep = request.layout.split.ep * factor;
    // On main memory more ranks help only where they bring more nodes.
    more.layout.nodes = request.machine.gpu ? std::max(1, ceil_div(more.layout.ranks(), std::max(a_node, 8)))
                                            : request.layout.nodes * factor;
    if (more.layout.ranks() % more.layout.nodes != 0 || !fits(more)) continue;
    found.push_back(flags_of(more.layout));
    break;
  }
  LayoutRequest other = request;
  for (const auto& format : weight_formats()) {
    other.format = &format;
    const bool smaller = std::string(format.name) != "bf16";
    if (!smaller || request.format == &format || !fits(other)) continue;
    found.push_back(fmt::format("{} weights in as many ranks{}", format.name,
                                format.readable ? "" : " (by their bytes; this version does not read them)"));
  }
  for (const auto& kind : gpu_kinds()) {
    if (!request.machine.gpu || *kind.obstacle != '\0') continue;
    other = request;
    other.machine.memory_bytes = static_cast<int64_t>(kind.memory_gib.value * (1LL << 30));
    if (other.machine.memory_bytes <= request.machine.memory_bytes || !fits(other)) continue;
    found.push_back(fmt::format("as many {}", kind.title));
    break;
  }
  return found;
}

std::string flags_of(const Layout& layout) {
  const model::Split& split = layout.split;
  const bool copies = layout.replicas > 1;
  std::string text = copies && split.dp > 1 ? fmt::format("{} servers of ", layout.replicas) : "";
  text += fmt::format("--tp {}", split.tp);
  if (split.dp > 1) text += fmt::format(" --dp {} --enable-dp-attention", split.dp);
  if (copies && split.dp == 1) text += fmt::format(" --dp {}", layout.replicas);
  if (split.ep > 1) text += fmt::format(" --ep-size {}", split.ep);
  if (split.redundant > 0) text += fmt::format(" --ep-num-redundant-experts {}", split.redundant);
  if (split.pp > 1) text += fmt::format(" --pp-size {}", split.pp);
  // Copies that are servers of their own have their own nodes.
  const int nodes = copies && split.dp > 1 ? layout.nodes_of(split.world()) : layout.nodes;
  if (nodes > 1) text += fmt::format(" --nnodes {}", nodes);
  return text;
}

}  // namespace fathom::engine

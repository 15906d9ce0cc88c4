#include "app/plan_flags.h"

#include "app/model_flags.h"
#include "app/serving.h"
#include "device/arena.h"
#include "engine/gpu.h"
#include "engine/layout/routing.h"

namespace fathom::app {
namespace {

constexpr double kGiB = 1 << 30;

void add_machine(CLI::App& command, PlanArgs& args) {
  CLI::App& group = *command.add_option_group("Machines");
  auto* device = command.get_option("--device");
  auto* gpu = group.add_option("--gpu", args.gpu, "Plan for GPUs that are not here: " + engine::gpu_names());
  auto* gpu_memory = group
                         .add_option("--gpu-memory", args.gpu_memory,
                                     "Plan for GPUs of which each has so much memory free, GiB")
                         ->check(CLI::Range(1.0, 4096.0));
  auto* memory = group
                     .add_option("--node-memory", args.node_memory,
                                 "Plan for ranks on CPUs whose nodes have so much memory free, GiB")
                     ->check(CLI::Range(1.0, 1048576.0));
  gpu->excludes(gpu_memory)->excludes(memory)->excludes(device);
  gpu_memory->excludes(memory)->excludes(device);
}

Result<engine::Machine> machine_here(const PlanArgs& args) {
  engine::Machine machine;
  auto settings = engine_settings(args.model);
  settings.tp_size = settings.dp_size = settings.ep_size = settings.pp_size = 1;
  settings.enable_dp_attention = false;
  settings.redundant_experts = 0;
  engine::ModelFacts facts;
  FATHOM_ASSIGN(const auto options, engine::resolve(settings, &facts));
  if (options.cuda) {
    FATHOM_ASSIGN(const auto gpu, engine::gpu_memory(options));
    machine.title = gpu.name;
    machine.memory_bytes = gpu.free_bytes;
    machine.workspace_bytes = gpu.workspace_bytes;
    machine.gpu = true;
    return machine;
  }
  machine.title = "this machine";
  machine.memory_bytes = static_cast<int64_t>(device::available_memory());
  return machine;
}

Result<engine::Machine> machine_of(const PlanArgs& args) {
  engine::Machine machine;
  if (!args.gpu.empty()) {
    machine.kind = engine::find_gpu(args.gpu);
    if (machine.kind == nullptr) {
      return error(ErrorCode::kInvalidArgument, "--gpu: got '{}', expected {}; or give --gpu-memory",
                   args.gpu, engine::gpu_names());
    }
    if (*machine.kind->obstacle != '\0') {
      return error(ErrorCode::kUnsupported,
                   "--gpu {}: {}; --gpu-memory {:.0f} plans the memory of such a machine all the same",
                   args.gpu, machine.kind->obstacle, machine.kind->memory_gib.value);
    }
    machine.title = machine.kind->title;
    machine.memory_bytes = static_cast<int64_t>(machine.kind->memory_gib.value * kGiB);
    machine.gpu = true;
    return machine;
  }
  if (args.gpu_memory > 0) {
    machine.title = "a GPU";
    machine.memory_bytes = static_cast<int64_t>(args.gpu_memory * kGiB);
    machine.gpu = true;
    return machine;
  }
  if (args.node_memory > 0) {
    machine.title = "a node's CPUs";
    machine.memory_bytes = static_cast<int64_t>(args.node_memory * kGiB);
    return machine;
  }
  return machine_here(args);
}

}  // namespace

void add_plan_flags(CLI::App& command, PlanArgs& args) {
  add_machine(command, args);
  auto* other = command.add_option_group("What to plan");
  other->add_option("--nnodes", args.nnodes, "Nodes that the ranks lie on; default: 1")
      ->check(CLI::Range(1, 1024));
  other->add_option("--weight-format", args.weight_format,
                    "As if the checkpoint were in this format: " + engine::weight_format_names() +
                        "; those that this version does not read by their bytes a parameter");
  other
      ->add_option("--sequence-length", args.sequence_length,
                   "Tokens of a sequence, to count how many fit and for --step-time; default: 4096")
      ->check(above_zero());
  auto* step_time =
      other->add_flag("--step-time", args.step_time,
                      "Predict the time of a step for every layout of as many GPUs (docs/simulation.md)");
  other
      ->add_option(
          "--routing-bias", args.routing_bias,
          fmt::format("For --step-time: how much more than by chance tokens agree on their experts, as the "
                      "deviation of a bias of the experts' scores; {} as dummy weights; default: {}",
                      engine::kDummyBias, args.routing_bias))
      ->check(CLI::Range(0.0, 1.0))
      ->needs(step_time);
}

Result<engine::LayoutRequest> layout_request(const PlanArgs& args) {
  engine::LayoutRequest request;
  FATHOM_ASSIGN(request.machine, machine_of(args));
  if (!args.weight_format.empty()) {
    request.format = engine::find_weight_format(args.weight_format);
    if (request.format == nullptr) {
      return error(ErrorCode::kInvalidArgument, "--weight-format: got '{}', expected {}", args.weight_format,
                   engine::weight_format_names());
    }
  }
  const auto settings = engine_settings(args.model);
  engine::Layout& layout = request.layout;
  layout.split.tp = settings.tp_size;
  layout.split.pp = settings.pp_size;
  layout.split.ep = settings.ep_size;
  layout.split.redundant = settings.redundant_experts;
  (settings.enable_dp_attention ? layout.split.dp : layout.replicas) = settings.dp_size;
  layout.nodes = args.nnodes;
  return request;
}

}  // namespace fathom::app

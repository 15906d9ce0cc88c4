#include "app/model_flags.h"

#include "engine/pool_size.h"
#include "engine/settings.h"
#include "text/answer/answer_parsers.h"
#include "text/encoding/prompt_encoding.h"

namespace fathom::app {
namespace {

std::string check_dtype(const std::string& given) {
  if (given == "auto" || given == "bfloat16" || given == "float32") return {};
  if (given == "float16" || given == "half") {
    return fmt::format(
        "got {}, which nothing computes in: F16 weights become BF16 (docs/models.md); use auto or "
        "bfloat16",
        given);
  }
  return fmt::format("got {}, expected auto, bfloat16 or float32", given);
}

std::string check_chat_template(const std::string& given) {
  return text::parse_prompt_encoding(given) ? std::string() : CLI::ExistingFile(given);
}

// Of what a parser of answers says to its flag's value, without the flag: CLI11 names that.
std::string check_parsers(std::string_view reasoning, std::string_view tools) {
  const auto chosen = text::choose_parsers(reasoning, tools, nullptr, "");
  if (chosen.ok()) return {};
  const std::string& message = chosen.error().message;
  return message.substr(message.find(": ") + 2);
}

void add_model(CLI::App& group, const ModelParts& parts, ModelArgs& args) {
  group
      .add_option("--model-path,--model", args.model_path,
                  "Folder of the checkpoint (config.json, *.safetensors)")
      ->required()
      ->type_name("DIR");
  group
      .add_option("--dtype", args.dtype,
                  "auto (bfloat16), bfloat16 or float32: how activations enter the products")
      ->check(check_dtype);
  group
      .add_option("--kv-cache-dtype", args.kv_cache_dtype,
                  "auto (the dtype), bfloat16, float32; on a GPU also fp8_e4m3, fp8_e5m2")
      ->check(CLI::IsMember({"auto", "bfloat16", "bf16", "float32", "fp8_e4m3", "fp8_e5m2"}));
  group
      .add_option("--fp8-activations", args.fp8_activations,
                  "Whether FP8 weights multiply activations rounded to FP8: auto (on a Hopper GPU, for a "
                  "checkpoint of 2048 or wider that was trained so), on or off")
      ->check(CLI::IsMember({"auto", "on", "off"}));
  group
      .add_option("--context-length", args.context_length,
                  "Longest prompt and output together; default: the model's")
      ->check(above_zero());
  group.add_flag("--disable-mla", args.disable_mla, "Cache full keys and values instead of the latent");
  group.add_flag(
      "--enable-deterministic-inference", args.enable_deterministic_inference,
      "On any CPU attend to prompts in one way however they are cut (on a GPU, and in bfloat16 on a CPU "
      "with AVX512-BF16 or AMX, it is always so): "
      "not even rounding depends on the batch or on the cache, and few new tokens after a long cached "
      "prefix take longer");
  if (parts.weights) {
    group
        .add_option("--load-format", args.load_format,
                    "auto, safetensors, or dummy (random weights from config.json)")
        ->check(CLI::IsMember({"auto", "safetensors", "dummy"}));
    group
        .add_option("--random-seed", args.random_seed,
                    parts.text
                        ? "Seed of the draws of requests that give none, in the order in which they come, "
                          "and of dummy weights; default: draws that nobody can guess"
                        : "Seed of dummy weights; default: 0")
        ->check([](const std::string& text) -> std::string {
          uint64_t value = 0;
          if (CLI::detail::lexical_cast(text, value) && !text.starts_with('-')) return {};
          return fmt::format("got {}, expected a whole number of 0 or more", text);
        });
  }
  if (parts.text) {
    group.add_option("--tokenizer-path", args.tokenizer_path,
                     "Folder of tokenizer.json; default: the model's");
    group
        .add_option("--chat-template", args.chat_template,
                    "Instead of the checkpoint's: a Jinja file, or DeepSeek's own encoding deepseek-v32, "
                    "deepseek-v4 or deepseek-v4-preview")
        ->check(check_chat_template);
  }
  if (parts.ids_only) {
    group.add_flag("--skip-tokenizer-init", args.skip_tokenizer_init,
                   "Serve token ids only (/generate with input_ids)");
  }
  if (parts.answers) {
    group
        .add_option("--reasoning-parser", args.reasoning_parser,
                    "auto (by the template), none, deepseek-r1, deepseek-v3, deepseek-v31 or deepseek-v4")
        ->check([](const std::string& name) { return check_parsers(name, "none"); });
    group
        .add_option("--tool-call-parser", args.tool_call_parser,
                    "auto (by the template), none, deepseekv3, deepseekv31, deepseekv32 or deepseekv4")
        ->check([](const std::string& name) { return check_parsers("none", name); });
    group
        .add_option("--reasoning-field", args.reasoning_field,
                    "Where answers have their reasoning: both, reasoning_content or reasoning")
        ->check(CLI::IsMember({"both", "reasoning_content", "reasoning"}));
    group
        .add_option(
            "--cache-explanations", args.cache_explanations,
            "What explain_cache may tell: off, reasons, text (how a prompt differs from cached ones of "
            "its salt) or all (whether another salt has it)")
        ->check(CLI::IsMember({"off", "reasons", "text", "all"}));
    group.add_flag(
        "--enable-custom-logit-processor", args.enable_custom_logit_processor,
        "Take the known processors by name: thinking budget, disallowed tokens, no repeated n-grams");
  }
}

void add_device(CLI::App& group, const ModelParts& parts, ModelArgs& args) {
  group.add_option("--device", args.device, "auto (the GPU where there is one), cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  if (!parts.weights) return;
  group
      .add_option("--threads", args.threads,
                  "Compute threads, split over the ranks; default: the CPUs this process may use")
      ->check(CLI::Range(1, 1024));
  group.add_option("--cpu-isa", args.cpu_isa, "auto, reference, avx2, avx512, avx512-bf16 or amx");
  if (!parts.scheduler) return;
  group.add_option("--trace-file", args.trace_file,
                   "Write a Chrome trace of every step when the engine ends");
  group.add_flag("--disable-cuda-graph", args.disable_cuda_graph,
                 "Launch every kernel of a decode step by itself");
  group
      .add_option("--cuda-graph-bs", args.cuda_graph_bs,
                  "Numbers of rows to capture decode graphs for, with blanks or commas between; default: "
                  "chosen")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  group
      .add_option("--cuda-graph-max-bs", args.cuda_graph_max_bs,
                  fmt::format("Most rows of a decode graph; default: {}", engine::kDefaultGraphRows))
      ->check(CLI::Range(1, 4096));
}

// A default that depends on the device.
std::string by_device(int32_t cpu, int32_t gpu) {
  return fmt::format("; default: {} on the CPU, {} on a GPU", cpu, gpu);
}

void add_memory(CLI::App& group, const ModelParts& parts, ModelArgs& args) {
  group
      .add_option("--page-size", args.page_size,
                  "Tokens a KV page" + by_device(engine::kDefaultPage, engine::kDefaultGpuPage))
      ->check(CLI::Range(1, 1024));
  if (!parts.pool) return;
  group
      .add_option("--mem-fraction-static", args.mem_fraction_static,
                  fmt::format("Share of the free memory for weights and KV pages; default: {}",
                              engine::kDefaultFraction))
      ->check(CLI::Range(0.01, 1.0));
  group
      .add_option("--max-total-tokens", args.max_total_tokens,
                  "Token places in the KV pool; default: from memory")
      ->check(above_zero());
  group
      .add_option("--max-running-requests", args.max_running_requests,
                  "Requests in a batch" + by_device(engine::kDefaultRunning, engine::kDefaultGpuRunning))
      ->check(CLI::Range(1, 4096));
  group
      .add_option("--chunked-prefill-size", args.chunked_prefill_size,
                  "Prompt tokens a step; 0 or less: no chunking" +
                      by_device(engine::kDefaultChunk, engine::kDefaultGpuChunk))
      ->check(CLI::Range(-(1 << 20), 1 << 20));
}

void add_scheduling(CLI::App& group, const ModelParts& parts, ModelArgs& args) {
  group.add_flag("--disable-radix-cache", args.disable_radix_cache, "Do not reuse cached prefixes");
  group.add_flag("--disable-overlap-schedule", args.disable_overlap_schedule,
                 "Plan a step after the last ended");
  if (parts.batches) {
    group
        .add_option("--schedule-policy", args.schedule_policy,
                    "fcfs or lpm (longest cached prefix first); default: " + args.schedule_policy)
        ->check(CLI::IsMember({"fcfs", "lpm"}));
    group
        .add_option("--schedule-conservativeness", args.schedule_conservativeness,
                    fmt::format("Above 1 admits fewer requests at once, below 1 more; default: {:g}",
                                args.schedule_conservativeness))
        ->check(CLI::Range(0.0, 100.0));
    group
        .add_option(
            "--prefill-step-ratio", args.prefill_step_ratio,
            "While others decode, prompts may make a step last so many times as long as without "
            "them, as measured; 0: no limit but --chunked-prefill-size; default: 1.5 on the CPU, 2 on a "
            "GPU")
        ->check([](const std::string& text) -> std::string {
          double value = 0.0;
          if (!CLI::detail::lexical_cast(text, value) || (value != 0.0 && !(value > 1.0 && value <= 1000.0)))
            return "expected 0, or a number above 1";
          return {};
        });
    group.add_flag("--disable-mixed-chunk", args.disable_mixed_chunk,
                   "Keep prompt and output tokens in separate steps");
  }
  if (parts.queue) {
    group
        .add_option("--max-queued-requests", args.max_queued_requests,
                    fmt::format("Waiting choices; above: 503; default: {}", args.max_queued_requests))
        ->check(above_zero());
    group.add_flag("--enable-priority-scheduling", args.enable_priority_scheduling,
                   "Requests with a larger `priority` begin sooner; the policy chooses among equals");
    group
        .add_option(
            "--watchdog-timeout", args.watchdog_timeout,
            "Seconds after which a step is taken to hang: requests get an error, and the server "
            "exits with 1; 0: never; default: 300 on a GPU, never on a CPU; not before --dist-timeout")
        ->check(CLI::Range(0, 86400));
  }
}

void add_speculation(CLI::App& group, ModelArgs& args) {
  auto* algorithm =
      group
          .add_option(
              "--speculative-algorithm", args.speculative_algorithm,
              "Guess tokens and verify several a step: EAGLE or NEXTN (the checkpoint's MTP layer), NGRAM "
              "(look-up in the sequence); default: off")
          ->check(CLI::IsMember({"EAGLE", "NEXTN", "NGRAM"}));
  group
      .add_option("--speculative-num-steps", args.speculative_num_steps,
                  "Tokens guessed one after another; default: 3")
      ->check(CLI::Range(1, 15))
      ->needs(algorithm);
  group
      .add_option("--speculative-eagle-topk", args.speculative_eagle_topk,
                  "Guesses for each place: 1 (a chain), up to 16 (a tree)")
      ->check(CLI::Range(1, 16))
      ->needs(algorithm);
  group
      .add_option(
          "--speculative-num-draft-tokens", args.speculative_num_draft_tokens,
          "Tokens verified a step, the last one among them; default: steps + 1; a tree's must be given")
      ->check(CLI::Range(2, 64))
      ->needs(algorithm);
  group
      .add_option("--speculative-draft-vocab", args.speculative_draft_vocab,
                  "On a GPU: guess among the token ids below this alone (docs/speculation.md); default: all")
      ->check(above_zero())
      ->needs(algorithm);
  auto* exact = group
                    .add_flag("--speculative-use-rejection-sampling,!--no-speculative-use-rejection-sampling",
                              args.speculative_use_rejection_sampling,
                              "Guesses change no token and no distribution (the default)")
                    ->needs(algorithm);
  group
      .add_option("--speculative-accept-threshold-single", args.speculative_accept_threshold_single,
                  "A guess this probable holds, whatever is drawn. Tokens then depend on guesses")
      ->check(CLI::Range(0.0, 1.0))
      ->needs(algorithm)
      ->excludes(exact);
  group
      .add_option("--speculative-accept-threshold-acc", args.speculative_accept_threshold_acc,
                  "Guesses hold as if they were this many times less improbable; likewise")
      ->check(CLI::Range(0.0, 1.0))
      ->needs(algorithm)
      ->excludes(exact);
  group
      .add_option("--speculative-draft-model-path,--speculative-draft-model,--speculative-draft",
                  args.speculative_draft_model_path, "Folder of the MTP layer: the model's own")
      ->type_name("DIR")
      ->needs(algorithm);
}

void add_adaptive(CLI::App& group, ModelArgs& args) {
  group
      .add_flag("--speculative-adaptive,!--no-speculative-adaptive", args.speculative_adaptive,
                "Guess only where it makes tokens faster, as measured at each size of batch; default: on")
      ->needs(group.get_option("--speculative-algorithm"));
}

void add_ranks(CLI::App& group, const ModelParts& parts, ModelArgs& args) {
  group
      .add_option("--tp-size,--tp,--tensor-parallel-size", args.tp_size,
                  "Ranks that the model's heads, MLPs and vocabulary are split over: threads of this process "
                  "on the CPU, "
                  "or a GPU each; default: 1")
      ->check(CLI::Range(1, 256));
  auto* experts =
      group
          .add_option(
              "--ep-size,--ep,--expert-parallel-size", args.ep_size,
              "Sets of those ranks that the routed experts are spread over; default: 1, each rank has "
              "a part of every expert")
          ->check(CLI::Range(1, 256));
  group.add_flag("--enable-ep-moe", args.enable_ep_moe,
                 "Experts are spread over ranks: --ep-size, where it is not given, is --tp-size");
  group
      .add_option("--ep-num-redundant-experts", args.ep_num_redundant_experts,
                  "Further places for routed experts, of all sets together; default: 0")
      ->check(CLI::Range(0, 4096))
      ->needs(experts);
  if (parts.groups && parts.weights) {
    auto* eplb = group
                     .add_flag("--enable-eplb", args.enable_eplb,
                               "Move experts between the sets while serving, so that each has as much to do")
                     ->needs(experts);
    group
        .add_option("--eplb-rebalance-num-iterations", args.eplb_rebalance_num_iterations,
                    "Forward passes from one time to the next; default: 1000")
        ->check(CLI::Range(1, 1 << 30))
        ->needs(eplb);
  }
  group
      .add_option("--pp-size,--pp,--pipeline-parallel-size", args.pp_size,
                  "Stages of layers, each of --tp-size ranks; default: 1")
      ->check(CLI::Range(1, 64));
  if (parts.groups) {
    group
        .add_option("--dp-size,--dp,--data-parallel-size", args.dp_size,
                    "Copies of the model, each of --tp-size ranks; default: 1. With --enable-dp-attention, "
                    "groups that the --tp-size ranks are split in; default: --tp-size, a rank each")
        ->check(CLI::Range(1, 64));
    group.add_flag("--enable-dp-attention", args.enable_dp_attention,
                   "Each group has requests and a KV pool of its own; experts are shared by all");
  }
  group.add_option("--base-gpu-id", args.base_gpu_id, "The first rank's GPU; the others follow; default: 0")
      ->check(CLI::Range(0, 63));
  if (!parts.weights) return;
  group
      .add_option("--dist-timeout", args.dist_timeout,
                  "Seconds that ranks wait for one of them before all end; default: 300")
      ->check(CLI::Range(1, 86400));
}

void add_nodes(CLI::App& group, ModelArgs& args) {
  auto* nodes = group
                    .add_option("--nnodes", args.nnodes,
                                "Processes that the ranks are spread over, evenly and in order; default: 1")
                    ->check(CLI::Range(1, 256));
  group
      .add_option("--node-rank", args.node_rank,
                  "Which of them this is; 0 serves HTTP, the others only compute; default: 0")
      ->check(CLI::Range(0, 255))
      ->needs(nodes);
  group
      .add_option("--dist-init-addr", args.dist_init_addr,
                  "Address of node 0 where it waits for the others; it listens there alone")
      ->type_name("HOST:PORT")
      ->needs(nodes);
  group
      .add_option(
          "--dist-secret-file", args.dist_secret_file,
          "File of a secret that all nodes know, 16 bytes or more; default: FATHOM_DIST_SECRET. Needed "
          "unless they meet on a loopback address")
      ->type_name("FILE")
      ->needs(nodes);
}

}  // namespace

void add_model_flags(CLI::App& command, const ModelParts& parts, ModelArgs& args) {
  add_model(*command.add_option_group(kModelGroup), parts, args);
  add_device(*command.add_option_group(kDeviceGroup), parts, args);
  add_memory(*command.add_option_group(kMemoryGroup), parts, args);
  if (parts.scheduler) add_scheduling(*command.add_option_group(kSchedulingGroup), parts, args);
  if (parts.ranks) {
    auto* ranks = command.add_option_group(kRanksGroup);
    add_ranks(*ranks, parts, args);
    if (parts.nodes) add_nodes(*ranks, args);
  }
  if (!parts.speculation) return;
  auto* speculation = command.add_option_group(kSpeculationGroup);
  add_speculation(*speculation, args);
  if (parts.scheduler) add_adaptive(*speculation, args);
}

CLI::Validator above_zero() {
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        double value = 0.0;
        if (CLI::detail::lexical_cast(text, value) && value > 0.0) return {};
        return fmt::format("got {}, expected a number above 0", text);
      },
      "POSITIVE");
}

void group_needs(CLI::App& command, const std::string& group, CLI::Option* flag) {
  for (auto* found : command.get_subcommands({})) {
    if (!found->get_name().empty() || found->get_group() != group) continue;
    for (auto* option : found->get_options([&](const CLI::Option* o) { return o != flag; })) {
      option->needs(flag);
    }
  }
}

}  // namespace fathom::app

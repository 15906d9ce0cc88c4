#include "app/refused_flags.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace fathom::app {
namespace {

struct Refusal {
  std::string_view flag;
  std::string_view reason;
};

constexpr std::string_view kGathered =
    "every rank sees the tokens of all and answers for its experts (--ep-size); leave it out";
constexpr std::string_view kFromCheckpoint = "the format is read from the checkpoint; leave it out";
constexpr std::string_view kAttention =
    "attention kernels are chosen by the device; on a CPU see --cpu-isa to force a level";
constexpr std::string_view kKernels = "kernels are chosen by the device and the shapes; leave it out";
constexpr std::string_view kOneWay = "there is one way in which experts are spread; leave it out";
constexpr std::string_view kSplitSequences =
    "a sequence is not split over ranks; use --tp, --pp-size or --dp";
constexpr std::string_view kNoOverlap = "ranks do not overlap halves of a batch; leave it out";
constexpr std::string_view kDeviceCache = "cached prefixes lie in the device's memory alone; leave it out";
constexpr std::string_view kOneServer = "one server computes prompts and outputs; leave it out";
constexpr std::string_view kImages = "this version takes text alone";
constexpr std::string_view kLora = "LoRA adapters are not supported";
constexpr std::string_view kTls = "Fathom speaks no TLS: put a proxy in front of it (docs/security.md)";
constexpr std::string_view kLinks = "ranks choose how they talk by the size of the message; leave it out";
constexpr std::string_view kGraphs = "use --cuda-graph-bs or --cuda-graph-max-bs";

// A name with a star stands for all flags that begin so.
constexpr std::array kRefusals = {
    Refusal{"--revision", "nothing is downloaded: --model-path is a folder"},
    Refusal{"--download-dir", "nothing is downloaded: --model-path is a folder"},
    Refusal{"--json-model-override-args", "edit the checkpoint's config.json"},
    Refusal{"--quantization", kFromCheckpoint},
    Refusal{"--quantization-param-path", "FP8 caches have a scale of 1; leave it out"},
    Refusal{"--weight-version", "it is always 'default'; use --served-model-name to tell versions apart"},
    Refusal{"--is-embedding", "Fathom serves generative models only"},
    Refusal{"--enable-lora", kLora},
    Refusal{"--lora-*", kLora},
    Refusal{"--max-lora*", kLora},
    Refusal{"--enable-multimodal", kImages},
    Refusal{"--limit-mm-*", kImages},
    Refusal{"--mm-*", kImages},

    Refusal{"--enable-flashinfer-allreduce-fusion", kLinks},
    Refusal{"--enable-flashinfer-cutlass-moe", kKernels},
    Refusal{"--enable-flashinfer-mla", kAttention},
    Refusal{"--enable-flashmla", kAttention},
    Refusal{"--flashinfer-*", kAttention},
    Refusal{"--triton-*", kAttention},
    Refusal{"--attention-backend", kAttention},
    Refusal{"--prefill-attention-backend", kAttention},
    Refusal{"--decode-attention-backend", kAttention},
    Refusal{"--dsa-*", kAttention},
    Refusal{"--nsa-*", kAttention},
    Refusal{"--speculative-attention-mode", "verified tokens attend as output tokens do; leave it out"},
    Refusal{"--grammar-backend",
            "there is one grammar engine, and it works for requests that ask for it; leave it out"},
    Refusal{"--moe-runner-backend", kKernels},
    Refusal{"--fp8-gemm-backend", kKernels},
    Refusal{"--fp8-gemm-runner-backend", kKernels},
    Refusal{"--speculative-token-map",
            "use --speculative-draft-vocab, which guesses among the first token ids"},
    Refusal{"--enable-nan-detection",
            "logits are not searched for NaN; fathom verify compares them with a golden file"},
    Refusal{"--enforce-shared-experts-fusion", "shared experts run beside the routed ones; leave it out"},
    Refusal{"--disable-cuda-graph-padding",
            "batches are padded to the next captured size; use --cuda-graph-bs"},
    Refusal{"--cuda-graph-bs-decode", kGraphs},
    Refusal{"--cuda-graph-max-bs-decode", kGraphs},
    Refusal{"--cuda-graph-config", kGraphs},

    Refusal{"--max-prefill-tokens", "use --chunked-prefill-size, which bounds the tokens of a step"},
    Refusal{"--pp-max-micro-batch-size",
            "a stage's batch is a share of the running requests; use --max-running-requests"},
    Refusal{"--priority-scheduling-preemption-threshold",
            "priorities decide who begins, never who gives way; use --enable-priority-scheduling alone"},
    Refusal{"--enable-dynamic-chunking", "use --prefill-step-ratio, which bounds prompts by what steps take"},
    Refusal{"--disable-chunked-prefix-cache", "prefixes are attended to in bounded chunks; leave it out"},
    Refusal{"--num-continuous-decode-steps", "the next step is planned while one runs; leave it out"},
    Refusal{"--radix-eviction-policy", "the prefix used longest ago is evicted first; leave it out"},
    Refusal{"--retraction-policy", "the request with the fewest output tokens gives way; leave it out"},
    Refusal{"--enable-hierarchical-cache", kDeviceCache},
    Refusal{"--hicache-*", kDeviceCache},
    Refusal{"--enable-hisparse", kDeviceCache},

    Refusal{"--cpu-offload-gb",
            "weights lie in one device's memory; use more GPUs (--tp, --pp-size) or --device cpu"},
    Refusal{"--enable-memory-saver", "memory is the process's own until it ends; end the server to free it"},
    Refusal{"--gpu-id-step",
            "ranks have GPUs that follow each other; use --base-gpu-id and CUDA_VISIBLE_DEVICES"},

    Refusal{"--nccl-init-addr", "use --dist-init-addr"},
    Refusal{"--disable-custom-all-reduce", kLinks},
    Refusal{"--enable-nccl-nvls", kLinks},
    Refusal{"--enable-symm-mem", kLinks},
    Refusal{"--enable-deepep-moe", kGathered},
    Refusal{"--deepep-mode", kGathered},
    Refusal{"--moe-a2a-backend", kGathered},
    Refusal{"--elastic-ep-backend", "a rank that fails ends the model; let a supervisor start it again"},
    Refusal{"--eplb-algorithm", kOneWay},
    Refusal{"--eplb-min-rebalancing-utilization-threshold", kOneWay},
    Refusal{"--init-expert-location", kOneWay},
    Refusal{"--ep-dispatch-algorithm", kOneWay},
    Refusal{"--expert-distribution-recorder-*",
            "use --enable-eplb, whose counts and imbalance the log and /server_info tell"},
    Refusal{"--moe-dense-tp-size", "dense MLPs are split over a group's ranks; leave it out"},
    Refusal{"--enable-prefill-delayer", "groups wait for each other's steps; leave it out"},
    Refusal{"--load-balance-method",
            "a request goes where most of its prompt is cached, unless that is much busier; leave it out"},
    Refusal{"--pp-async-batch-depth",
            "as many steps are out as there are stages, and one more; leave it out"},
    Refusal{"--enable-two-batch-overlap", kNoOverlap},
    Refusal{"--enable-single-batch-overlap", kNoOverlap},
    Refusal{"--tbo-*", kNoOverlap},
    Refusal{"--enable-prefill-cp", kSplitSequences},
    Refusal{"--enable-nsa-prefill-context-parallel", kSplitSequences},
    Refusal{"--cp-strategy", kSplitSequences},
    Refusal{"--attn-cp-size", kSplitSequences},
    Refusal{"--dcp-size", kSplitSequences},
    Refusal{"--disaggregation-*", kOneServer},
    Refusal{"--pd-disaggregation", kOneServer},
    Refusal{"--num-reserved-decode-tokens", kOneServer},

    Refusal{"--ssl-*", kTls},
    Refusal{"--root-path", "routes begin at /; let the proxy in front take the prefix off"},
    Refusal{"--tokenizer-worker-num", "every request is tokenized on its own thread; leave it out"},
    Refusal{"--incremental-streaming-output",
            "/generate streams the whole answer so far; use /v1/completions, which streams what is new"},
    Refusal{"--stream-interval",
            "tokens are sent as they come, those that wait together, as with 1; leave it out"},
    Refusal{"--stream-response-default-include-usage", "give stream_options.include_usage in the request"},
    Refusal{"--allow-auto-truncate", "a prompt that is too long is refused, never cut"},
    Refusal{"--preferred-sampling-params", "put them into the checkpoint's generation_config.json"},
    Refusal{"--constrained-json-whitespace-pattern", "say it in the schema or by a regex of the request"},
    Refusal{"--show-time-cost", "use --trace-file"},
    Refusal{"--crash-dump-folder",
            "a crash leaves its report in the log (docs/serving.md); --log-requests keeps what was asked"},
    Refusal{"--bucket-*", "the buckets of /metrics are fixed, SGLang's; leave it out"},

    // Other servers'.
    Refusal{"--disable-log-requests", "requests are logged only with --log-requests; leave it out"},
    Refusal{"--max-model-len", "use --context-length"},
    Refusal{"--ctx-size", "use --context-length"},
    Refusal{"--gpu-memory-utilization", "use --mem-fraction-static"},
    Refusal{"--max-num-seqs", "use --max-running-requests"},
    Refusal{"--max-num-batched-tokens", "use --chunked-prefill-size"},
};

bool stands_for(std::string_view name, std::string_view flag) {
  return name.ends_with('*') ? flag.starts_with(name.substr(0, name.size() - 1)) : flag == name;
}

// Levenshtein distance.
size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string> refusal_of(std::string_view flag) {
  const auto* found = std::find_if(kRefusals.begin(), kRefusals.end(),
                                   [&](const Refusal& r) { return stands_for(r.flag, flag); });
  if (found == kRefusals.end()) return std::nullopt;
  return std::string(found->reason);
}

std::optional<std::string> nearest_flag(std::string_view flag, const std::vector<std::string>& known) {
  size_t best = flag.size() / 3 + 1;
  std::optional<std::string> nearest;
  for (const auto& name : known) {
    const size_t distance = edits(flag, name);
    if (distance <= best && (!nearest || distance < best)) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace fathom::app

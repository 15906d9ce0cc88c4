#include "engine/speculation.h"

#include <filesystem>

namespace fathom::engine {
namespace {

constexpr int32_t kDefaultSteps = 3;

// The number of guesses that the three flags come to: without branches, one a step.
Result<int32_t> chain_length(const SpeculationSettings& settings) {
  if (settings.eagle_topk > 1) {
    return error(ErrorCode::kUnsupported,
                 "--speculative-eagle-topk {}: drafts are chains in this version; use 1",
                 settings.eagle_topk);
  }
  const int32_t steps = settings.num_steps > 0          ? settings.num_steps
                        : settings.num_draft_tokens > 0 ? settings.num_draft_tokens - 1
                                                        : kDefaultSteps;
  if (settings.num_draft_tokens > 0 && settings.num_draft_tokens != steps + 1) {
    return error(ErrorCode::kInvalidArgument,
                 "--speculative-num-draft-tokens {} with --speculative-num-steps {}: a chain of {} steps is "
                 "verified as {} tokens; give {}, or leave one of the two out",
                 settings.num_draft_tokens, steps, steps, steps + 1, steps + 1);
  }
  if (steps < 1 || steps > kMostDrafts) {
    return error(ErrorCode::kInvalidArgument, "--speculative-num-steps {}: expected 1 to {}", steps,
                 kMostDrafts);
  }
  return steps;
}

bool same_folder(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return a == b || std::filesystem::equivalent(a, b, ignored);
}

}  // namespace

Result<Speculation> resolve_speculation(const SpeculationSettings& settings, const model::ModelConfig& config,
                                        const std::string& model_path) {
  if (settings.algorithm.empty()) return Speculation{};
  Speculation speculation;
  if (settings.algorithm == "EAGLE" || settings.algorithm == "NEXTN") {
    speculation.source = Speculation::Source::kDraftLayer;
  } else if (settings.algorithm == "NGRAM") {
    speculation.source = Speculation::Source::kLookup;
  } else {
    return error(ErrorCode::kUnsupported,
                 "--speculative-algorithm {}: expected EAGLE or NEXTN (the checkpoint's MTP layer) or NGRAM "
                 "(look-up in the sequence itself)",
                 settings.algorithm);
  }
  if (speculation.source == Speculation::Source::kDraftLayer && config.mtp_layers == 0) {
    return error(
        ErrorCode::kInvalidArgument,
        "--speculative-algorithm {}: the checkpoint has no MTP layer (num_nextn_predict_layers is 0); "
        "use NGRAM, which needs none",
        settings.algorithm);
  }
  if (!settings.draft_model_path.empty() && !same_folder(settings.draft_model_path, model_path)) {
    return error(
        ErrorCode::kUnsupported,
        "--speculative-draft-model-path {}: drafts come from the checkpoint's own MTP layer; leave it "
        "out, or give --model-path's folder",
        settings.draft_model_path);
  }
  FATHOM_ASSIGN(speculation.max_drafts, chain_length(settings));
  speculation.simulated_acceptance = settings.simulated_acceptance;
  return speculation;
}

std::string to_string(const Speculation& speculation) {
  if (speculation.source == Speculation::Source::kNone) return "off";
  return fmt::format("{}, {} drafts a step",
                     speculation.source == Speculation::Source::kLookup ? "NGRAM" : "EAGLE",
                     speculation.max_drafts);
}

}  // namespace fathom::engine

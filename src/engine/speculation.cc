#include "engine/speculation.h"

#include <algorithm>
#include <filesystem>

namespace fathom::engine {
namespace {

constexpr int32_t kDefaultSteps = 3;

// A tree's three numbers must all be given, as the reference wants it.
Result<void> set_tree(const SpeculationSettings& settings, Speculation* speculation) {
  const int32_t branches = settings.eagle_topk;
  if (speculation->source == Speculation::Source::kLookup) {
    return error(ErrorCode::kUnsupported,
                 "--speculative-eagle-topk {}: look-up finds one continuation; use 1, or EAGLE for trees",
                 branches);
  }
  const int32_t steps = settings.num_steps, guesses = settings.num_draft_tokens - 1;
  if (branches > kMostBranches || steps < 1 || steps > kMostDrafts || guesses < 1) {
    return error(
        ErrorCode::kInvalidArgument,
        "--speculative-eagle-topk {} with --speculative-num-steps {} and --speculative-num-draft-tokens "
        "{}: a tree takes all three: 2 to {}, 1 to {}, and 2 or more",
        branches, steps, settings.num_draft_tokens, kMostBranches, kMostDrafts);
  }
  const int32_t most = std::min(branches + branches * branches * (steps - 1), kMostGuesses);
  if (guesses > most) {
    return error(
        ErrorCode::kInvalidArgument,
        "--speculative-num-draft-tokens {}: a tree of {} steps with {} branches has at most {} guesses; "
        "give {} or less",
        settings.num_draft_tokens, steps, branches, most, most + 1);
  }
  speculation->steps = steps;
  speculation->branches = branches;
  speculation->max_guesses = guesses;
  speculation->max_drafts = std::max(guesses, branches * (steps - 1));
  return {};
}

// Without branches the three flags come to one number.
Result<void> set_chain(const SpeculationSettings& settings, Speculation* speculation) {
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
  speculation->steps = speculation->max_guesses = speculation->max_drafts = steps;
  return {};
}

Result<void> set_thresholds(const SpeculationSettings& settings, Speculation* speculation) {
  const bool given = settings.accept_threshold_single >= 0.0 || settings.accept_threshold_acc >= 0.0;
  if (settings.use_rejection_sampling && !given) return {};
  sample::GuessThresholds thresholds;
  if (settings.accept_threshold_single >= 0.0) thresholds.single = settings.accept_threshold_single;
  if (settings.accept_threshold_acc >= 0.0) thresholds.acc = settings.accept_threshold_acc;
  for (const double value : {thresholds.single, thresholds.acc}) {
    if (!(value > 0.0 && value <= 1.0)) {
      return error(ErrorCode::kInvalidArgument,
                   "--speculative-accept-threshold-single {} and -acc {}: expected above 0, at most 1",
                   thresholds.single, thresholds.acc);
    }
  }
  speculation->thresholds = thresholds;
  return {};
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
  FATHOM_TRY(settings.eagle_topk > 1 ? set_tree(settings, &speculation) : set_chain(settings, &speculation));
  FATHOM_TRY(set_thresholds(settings, &speculation));
  if (settings.draft_vocab < 0 ||
      (settings.draft_vocab > 0 && speculation.source != Speculation::Source::kDraftLayer)) {
    return error(ErrorCode::kInvalidArgument,
                 "--speculative-draft-vocab {} with {}: a number of token ids that the draft layer of EAGLE "
                 "guesses among; leave it out for all",
                 settings.draft_vocab, settings.algorithm);
  }
  speculation.draft_vocab = settings.draft_vocab;
  speculation.simulated_acceptance = settings.simulated_acceptance;
  return speculation;
}

std::string to_string(const Speculation& speculation) {
  if (speculation.source == Speculation::Source::kNone) return "off";
  std::string text = speculation.branches > 1
                         ? fmt::format("EAGLE, trees of {} guesses, {} deep, {} branches",
                                       speculation.max_guesses, speculation.steps, speculation.branches)
                         : fmt::format("{}, {} drafts a step",
                                       speculation.source == Speculation::Source::kLookup ? "NGRAM" : "EAGLE",
                                       speculation.max_drafts);
  if (speculation.thresholds) {
    text += fmt::format(", accepted from {} alone and {} together", speculation.thresholds->single,
                        speculation.thresholds->acc);
  }
  return text;
}

}  // namespace fathom::engine

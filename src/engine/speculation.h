// What the command line says about speculative decoding, checked against the model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "model/config.h"
#include "sample/sampler.h"

namespace fathom::engine {

// As the flags give it, with the reference system's names; 0 and empty: not given.
struct SpeculationSettings {
  std::string algorithm;         // EAGLE, NEXTN (the same), NGRAM
  int32_t num_steps = 0;         // passes of the draft layer
  int32_t eagle_topk = 0;        // branches
  int32_t num_draft_tokens = 0;  // tokens of a sequence that a step verifies: the last one and the guesses
  std::string draft_model_path;
  bool use_rejection_sampling = true;   // false: the thresholds' rule
  double accept_threshold_single = -1;  // negative: not given; given, it is the thresholds' rule
  double accept_threshold_acc = -1;
  int32_t draft_vocab = 0;             // token ids below this are guessed; 0: all
  double simulated_acceptance = -1.0;  // for measurements: Speculation's
};

inline constexpr int32_t kMostDrafts = 15;   // of a chain
inline constexpr int32_t kMostGuesses = 63;  // of a tree
inline constexpr int32_t kMostBranches = 16;

struct Speculation {
  enum class Source : uint8_t {
    kNone,
    kDraftLayer,  // the checkpoint's MTP layer
    kLookup,      // what followed the last tokens earlier in the same sequence
  };
  Source source = Source::kNone;
  int32_t steps = 0;        // guesses in a row
  int32_t branches = 1;     // for each place; 1: chains
  int32_t max_guesses = 0;  // a step and sequence verifies
  int32_t max_drafts = 0;   // places that they take, in the draft layer too; 0 without a source
  std::optional<sample::GuessThresholds> thresholds{};  // none: what is chosen does not depend on guesses
  int32_t draft_vocab = 0;  // the draft layer guesses among the token ids below this alone; 0: among all
  // 0 to 1: a guess holds with this probability, whatever the model chooses, to measure the speed of a draft
  // layer that has been trained where there is none. Below 0: as it should be.
  double simulated_acceptance = -1.0;
};

// kInvalidArgument for values that do not go together, kUnsupported for what Fathom does not do; the messages
// say what to give instead.
Result<Speculation> resolve_speculation(const SpeculationSettings& settings, const model::ModelConfig& config,
                                        const std::string& model_path);

// "EAGLE, 3 drafts a step", for the log.
std::string to_string(const Speculation& speculation);

}  // namespace fathom::engine

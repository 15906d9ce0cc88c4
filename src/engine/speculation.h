// What the command line says about speculative decoding, checked against the model.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "model/config.h"

namespace fathom::engine {

// As the flags give it, with the reference system's names; 0 and empty: not given.
struct SpeculationSettings {
  std::string algorithm;         // EAGLE, NEXTN (the same), NGRAM
  int32_t num_steps = 0;         // passes of the draft layer
  int32_t eagle_topk = 0;        // branches
  int32_t num_draft_tokens = 0;  // tokens of a sequence that a step verifies: the last one and the guesses
  std::string draft_model_path;
};

struct Speculation {
  enum class Source : uint8_t {
    kNone,
    kDraftLayer,  // the checkpoint's MTP layer
    kLookup,      // what followed the last tokens earlier in the same sequence
  };
  Source source = Source::kNone;
  int32_t max_drafts = 0;  // guesses a step and sequence; 0 without a source
};

// kInvalidArgument for values that do not go together, kUnsupported for what Fathom does not do; the messages
// say what to give instead.
Result<Speculation> resolve_speculation(const SpeculationSettings& settings, const model::ModelConfig& config,
                                        const std::string& model_path);

// "EAGLE, 3 drafts a step", for the log.
std::string to_string(const Speculation& speculation);

}  // namespace fathom::engine

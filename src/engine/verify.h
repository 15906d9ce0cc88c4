// Compares a model with a golden file: prompt logits, and the greedy continuation through the decode path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/settings.h"

namespace fathom::engine {

// One prompt of the golden file.
struct VerifyCase {
  std::string name;
  double worst_error = 0.0;    // largest |logit - golden|
  int64_t worst_position = 0;  // its prompt position
  int64_t worst_token = 0;     // and token id
  double worst_kl = 0.0;       // KL(golden || got) of the next token, nats, over positions
  double median_kl = 0.0;
  std::vector<double> kl;         // at each compared position
  int64_t compared = 0;           // logits compared
  int64_t greedy_tokens = 0;      // of the golden continuation
  int64_t first_difference = -1;  // index of the first differing greedy token; -1: none
  int32_t expected = -1, got = -1;
};

// The file holds input_ids [B, T], logits [B, T', V] (the last T' positions) and greedy [B, N]; or, for each
// case i, i.input_ids [T], i.last_logits [V] and i.greedy [N]. kInvalidArgument when it is neither or does
// not fit the model.
Result<std::vector<VerifyCase>> verify(const Settings& settings, const std::string& golden_file);

// The upper median.
double median(std::vector<double> values);

}  // namespace fathom::engine

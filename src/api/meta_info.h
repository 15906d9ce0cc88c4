// The reference system's `meta_info`: how a choice ended, its counts and its log-probabilities.
#pragma once

#include <optional>
#include <string>

#include "api/request_run.h"

namespace fathom::api {

inline constexpr const char* kWeightVersion = "default";

// Which of the native log-probability lists were asked for.
struct NativeLogprobs {
  bool wanted = false;
  int32_t start = -1;  // logprob_start_len: first prompt position of the input lists, -1: none
  int32_t top = 0;
  bool ids = false;  // token_ids_logprob was given
  bool text = false;
  bool input = true;  // the lists of the prompt too
};

// `id` is the request's; `seconds` since it came, left out when negative (not finished).
nlohmann::ordered_json meta_info(const ServiceContext& context, const Choice& choice, const std::string& id,
                                 double seconds, const NativeLogprobs& logprobs);

// A JSON number for every log-probability: minus infinity, which JSON has not, is -9999.
double logprob_json(float logprob);

}  // namespace fathom::api

// What the choices of one HTTP request come to, for metrics and for the limits of its key. Used by one
// handler thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "api/context.h"

namespace fathom::api {

struct Choice;
struct RunSpec;

class RunTally {
 public:
  // `context` must outlive this; choices are numbered from 0.
  RunTally(const ServiceContext& context, size_t choices);
  // Gives the places back, and the prompt tokens that nobody worked on.
  ~RunTally();
  RunTally(const RunTally&) = delete;
  RunTally& operator=(const RunTally&) = delete;

  // Takes note of the choices, and places for all of them within the limits of the caller's key; 429 when
  // there are none now. Logs the request and lets go of its body, which nobody needs while it runs.
  Refusal begin(const std::vector<RunSpec>& specs);

  // Tokens that a choice took from an event of `time_ns` (0: now).
  void tokens(size_t choice, int64_t count, int64_t time_ns);
  // The choice is over; a second call for it changes nothing. `gone`: its client has vanished.
  void end(const Choice& choice, const TokenStream& stream, bool gone);

 private:
  struct Times {
    int64_t last_token_ns = 0;
    bool ended = false;
  };

  const ServiceContext& context_;
  std::vector<Times> times_;
  int32_t places_ = 0;
  int64_t idle_tokens_ = 0;  // of prompts that the engine has not begun, counted for the key
};

}  // namespace fathom::api

// Answers in the form of OpenAI's Responses API.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "api/request_run.h"
#include "api/responses_request.h"

namespace fathom::api {

// Grows one response with its choice, item after item, and tells each step as a streaming event; whole
// answers are the last state of the same.
class ResponseBuilder {
 public:
  ResponseBuilder(const ServiceContext& context, const ResponsesRequest& request);

  // response.created and response.in_progress.
  std::vector<nlohmann::ordered_json> begin();
  // The events for what came to the choice; with its finish the last ones.
  std::vector<nlohmann::ordered_json> advance(const Choice& choice, const Growth& growth);

  // The response as it stands.
  const nlohmann::ordered_json& response() const { return response_; }

 private:
  using Kind = text::OutputPiece::Kind;
  enum class Open { kNothing, kReasoning, kMessage, kCall };

  void add_piece(const Choice& choice, const text::OutputPiece& piece);
  void open_item(Open kind, nlohmann::ordered_json item);
  void close_item(const Choice& choice, const char* status);
  void close_reasoning();
  void close_text(const Choice& choice);
  void finish(const Choice& choice);
  nlohmann::ordered_json new_logprobs(const Choice& choice);
  // An event of the open item, or with its response.
  void tell(const char* type, nlohmann::ordered_json fields);
  void tell_response(const char* type);
  void tell_part(const char* type, nlohmann::ordered_json part);

  const ServiceContext& context_;
  const ResponsesRequest& request_;
  nlohmann::ordered_json response_;
  std::vector<nlohmann::ordered_json> events_;  // of the call at hand
  int64_t sequence_ = 0;
  Open open_ = Open::kNothing;
  nlohmann::ordered_json item_;  // the open one, as it began
  std::string text_;             // of the open item
  nlohmann::ordered_json logprobs_;
  size_t logprobs_taken_ = 0;  // of the choice's outputs
  size_t items_ = 0;           // begun
  size_t calls_ = 0;           // begun
};

}  // namespace fathom::api

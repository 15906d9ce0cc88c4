// Answers in the form of Anthropic's Messages API.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/anthropic_request.h"
#include "api/request_run.h"

namespace fathom::api {

// The whole answer. The choice must have finished.
nlohmann::ordered_json anthropic_message(const ServiceContext& context, const MessagesRequest& request,
                                         const Choice& choice);

// The events of a streamed answer: message_start, the blocks one after another, message_delta, message_stop.
class AnthropicEvents {
 public:
  AnthropicEvents(const ServiceContext& context, const MessagesRequest& request)
      : context_(context), request_(request) {}

  // The events for what came to the choice.
  std::vector<nlohmann::ordered_json> advance(const Choice& choice, const Growth& growth);
  bool begun() const { return begun_; }

 private:
  void add_piece(const Choice& choice, const text::OutputPiece& piece);
  void open_block(text::OutputPiece::Kind kind, nlohmann::ordered_json block);
  void close_block();
  void add_delta(nlohmann::ordered_json delta);

  const ServiceContext& context_;
  const MessagesRequest& request_;
  std::vector<nlohmann::ordered_json> events_;  // of the call at hand
  bool begun_ = false;
  std::optional<text::OutputPiece::Kind> open_;  // the kind of the open block
  size_t blocks_ = 0;                            // begun
  size_t calls_ = 0;                             // begun
};

}  // namespace fathom::api

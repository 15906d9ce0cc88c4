// POST /v1/messages: the request's fields, read into a chat request.
#pragma once

#include "api/chat_request.h"

namespace fathom::api {

struct MessagesRequest {
  ChatRequest chat;
  bool omit_thinking = false;  // thinking blocks are empty
};

// `counting`: of /v1/messages/count_tokens, which has a part of the fields and needs no max_tokens.
Refusal read_messages_request(const ServiceContext& context, const nlohmann::ordered_json& body,
                              bool counting, MessagesRequest* out);

}  // namespace fathom::api

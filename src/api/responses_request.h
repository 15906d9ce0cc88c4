// POST /v1/responses: the request's fields, read into a chat request.
#pragma once

#include "api/chat_request.h"

namespace fathom::api {

struct ResponsesRequest {
  ChatRequest chat;
  // What the answer repeats of the request: instructions, tools, text, ...
  nlohmann::ordered_json echo = nlohmann::ordered_json::object();
  bool encrypted_reasoning = false;  // reasoning items carry encrypted_content
};

Refusal read_responses_request(const ServiceContext& context, const nlohmann::ordered_json& body,
                               ResponsesRequest* out);

}  // namespace fathom::api

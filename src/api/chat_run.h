// From a chat request to the runs of its choices; shared by the chat, messages and responses endpoints.
#pragma once

#include <vector>

#include "api/chat_request.h"
#include "api/request_run.h"

namespace fathom::api {

// Renders the conversation, finds how the answer begins (kept in request->answer), compiles the output's form
// and checks the length.
Refusal plan_chat(const ServiceContext& context, ChatRequest* request, std::vector<RunSpec>* specs);

// The prompt alone: the conversation's, or the request's input_ids.
Refusal chat_request_prompt(const ServiceContext& context, const ChatRequest& request, ChatPrompt* out);

}  // namespace fathom::api

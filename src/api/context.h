// What every endpoint works with: a copy for each HTTP request, `caller` its own, the rest shared by all
// threads.
#pragma once

#include "api/active_requests.h"
#include "api/answer.h"
#include "api/caller.h"
#include "api/errors.h"
#include "api/fields.h"
#include "api/metrics.h"
#include "api/model_card.h"
#include "api/service.h"
#include "api/special_tokens.h"
#include "api/turn_memory.h"
#include "text/grammar/grammar_cache.h"

namespace fathom::api {

struct ServiceContext {
  const ServiceOptions& options;
  const ModelCard& card;
  RequestSink& sink;
  const text::Tokenizer* tokenizer;         // null with --skip-tokenizer-init
  const text::ChatTemplate* chat_template;  // null when the checkpoint has none
  const SpecialTokenGuard* guard;           // null without a tokenizer
  ActiveRequests& active;
  const AnswerTokens& answer_tokens;
  text::GrammarCache* grammars;  // null without a tokenizer
  TurnMemory* turns;             // null without a tokenizer
  ServiceMetrics* metrics;
  Caller* caller;  // set by Service::handle
  // Not null: only the fields that the endpoint reads are wanted, and no request is run. See openapi.h.
  FieldLog* field_log = nullptr;
};

// Refuses a `model` that is not the served one: 404 model_not_found. An empty name, "default" and the served
// name are the served model.
Refusal check_model(const ServiceContext& context, const std::string& name);

}  // namespace fathom::api

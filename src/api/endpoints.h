// The endpoints. Each reads its request, writes exactly one answer, and returns when that is done.
#pragma once

#include "api/context.h"
#include "http/message.h"

namespace fathom::api {

void handle_chat(const ServiceContext& context, const http::Request& request, http::ResponseWriter& writer);
void handle_completions(const ServiceContext& context, const http::Request& request,
                        http::ResponseWriter& writer);
void handle_responses(const ServiceContext& context, const http::Request& request,
                      http::ResponseWriter& writer);
void handle_messages(const ServiceContext& context, const http::Request& request,
                     http::ResponseWriter& writer);
void handle_count_tokens(const ServiceContext& context, const http::Request& request,
                         http::ResponseWriter& writer);
void handle_generate(const ServiceContext& context, const http::Request& request,
                     http::ResponseWriter& writer);
void handle_tokenize(const ServiceContext& context, const http::Request& request,
                     http::ResponseWriter& writer);
void handle_detokenize(const ServiceContext& context, const http::Request& request,
                       http::ResponseWriter& writer);
void handle_separate_reasoning(const ServiceContext& context, const http::Request& request,
                               http::ResponseWriter& writer);
void handle_parse_function_call(const ServiceContext& context, const http::Request& request,
                                http::ResponseWriter& writer);
void handle_apply_template(const ServiceContext& context, const http::Request& request,
                           http::ResponseWriter& writer);
void handle_metrics(const ServiceContext& context, const http::Request& request,
                    http::ResponseWriter& writer);
void handle_abort(const ServiceContext& context, const http::Request& request, http::ResponseWriter& writer);
void handle_start_profile(const ServiceContext& context, const http::Request& request,
                          http::ResponseWriter& writer);
void handle_stop_profile(const ServiceContext& context, const http::Request& request,
                         http::ResponseWriter& writer);
void handle_flush_cache(const ServiceContext& context, const http::Request& request,
                        http::ResponseWriter& writer);

void handle_models(const ServiceContext& context, const http::Request& request, http::ResponseWriter& writer);
void handle_openapi(const ServiceContext& context, const http::Request& request,
                    http::ResponseWriter& writer);
void handle_model_info(const ServiceContext& context, const http::Request& request,
                       http::ResponseWriter& writer);
void handle_server_info(const ServiceContext& context, const http::Request& request,
                        http::ResponseWriter& writer);
void handle_loads(const ServiceContext& context, const http::Request& request, http::ResponseWriter& writer);

}  // namespace fathom::api

// What clients are told about their prompt and the prefix cache, when they ask (explain_cache).
#pragma once

#include <vector>

#include <nlohmann/json.hpp>

#include "api/request_run.h"

namespace fathom::api {

// {reason, hit_tokens, at_token, before_text, got_text, expected_text} of a choice; null where nobody asked.
nlohmann::ordered_json cache_miss_json(const ServiceContext& context, const Choice& choice);

// Adds `prompt_cache_miss`, of the first choice, to the usage, where somebody asked.
void add_cache_miss(const ServiceContext& context, const std::vector<Choice>& choices,
                    nlohmann::ordered_json* usage);

}  // namespace fathom::api

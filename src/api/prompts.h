// Prompts given as text or as token ids, one or many.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/context.h"
#include "api/fields.h"

namespace fathom::api {

struct Prompts {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::string> texts;  // beside ids where the prompts are text, else empty
  bool batch = false;              // given as a list of prompts, be it of one
};

// Tokenises what is not a chat: the beginning-of-sentence token is added where the tokenizer does so, but not
// a second one when the text begins with it.
std::vector<int32_t> encode_prompt(const text::Tokenizer& tokenizer, std::string_view text,
                                   bool add_special_tokens);

// The KV pool by name where that is smaller than the model's context, else nothing: what a request that does
// not fit is told of instead of the model's.
std::optional<std::string> small_pool(const ModelCard& card);
// The refusal of a prompt of so many `tokens`, a number or "at least" one.
ApiError input_too_long(const ModelCard& card, std::string_view tokens);

// Refuses a text that cannot fit in the context, before it is tokenised.
Refusal check_text_length(const ServiceContext& context, size_t bytes);

// Reads `value`: a string, a list of strings, a list of ids, or a list of lists of ids. Errors name `field`.
Refusal read_prompts(const ServiceContext& context, std::string_view field,
                     const nlohmann::ordered_json& value, Prompts* out);
// The two kinds alone.
Refusal read_texts(const ServiceContext& context, std::string_view field, const nlohmann::ordered_json& value,
                   Prompts* out);
Refusal read_ids(const ServiceContext& context, std::string_view field, const nlohmann::ordered_json& value,
                 Prompts* out);

}  // namespace fathom::api

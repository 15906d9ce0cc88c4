// What a request wants its output to look like: response_format, json_schema, regex, ebnf, structural_tag.
#pragma once

#include <memory>
#include <string>

#include "api/answer.h"
#include "api/errors.h"
#include "api/fields.h"
#include "core/token_mask.h"
#include "text/grammar/grammars.h"

namespace fathom::api {

struct ServiceContext;

struct OutputForm {
  enum class Kind { kFree, kJsonObject, kJsonSchema, kRegex, kEbnf, kStructuralTag, kToolCalls };
  Kind kind = Kind::kFree;
  std::string field;              // that asked for it, for errors
  nlohmann::ordered_json schema;  // kJsonSchema; kStructuralTag: the tag
  bool best_effort = false;       // kJsonSchema: keywords that are not enforced are dropped, not refused
  std::string text;               // kRegex, kEbnf
  text::ToolGrammar tools;        // kToolCalls
};

// json_schema and structural_tag (text or an object), regex and ebnf; at most one.
void read_output_form(Fields& fields, OutputForm* out);
// OpenAI's response_format: text, json_object, json_schema; and the reference's structural_tag.
void read_response_format(Fields& fields, OutputForm* out);
// The same without the inner object, {"type", "schema"}, in the field `name`, whose whole path is `path`.
// `strict`: what a format is that does not say.
void read_flat_format(Fields& fields, std::string_view name, const std::string& path, bool strict,
                      OutputForm* out);

// Compiles the form, or finds it compiled; null for kFree. `start`: how the answer begins; thoughts are free.
Refusal make_mask(const ServiceContext& context, const OutputForm& form, text::ReasoningStart start,
                  std::shared_ptr<const TokenMaskSource>* out);

}  // namespace fathom::api

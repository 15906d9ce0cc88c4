#include "api/grammar_fields.h"

#include "api/context.h"
#include "api/json_body.h"
#include "text/grammar/grammar_cache.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using Kind = OutputForm::Kind;

bool take(Fields& fields, std::string_view field, Kind kind, OutputForm* out) {
  if (out->kind != Kind::kFree) {
    fields.fail(field,
                fmt::format("only one of response_format, json_schema, structural_tag, regex and ebnf is "
                            "allowed; {} is there too",
                            out->field));
    return false;
  }
  out->kind = kind;
  out->field = field;
  return true;
}

void take_schema(Fields& fields, std::string_view field, Kind kind, const ordered_json& schema,
                 OutputForm* out) {
  if (!take(fields, field, kind, out)) return;
  out->schema = schema;
}

std::string key_of(const OutputForm& form) {
  switch (form.kind) {
    case Kind::kFree:
      return {};
    case Kind::kJsonObject:
      return "object";
    case Kind::kJsonSchema:
      return (form.best_effort ? "some schema" : "schema") + dump(form.schema);
    case Kind::kStructuralTag:
      return "tag" + dump(form.schema);
    case Kind::kRegex:
      return "regex" + form.text;
    case Kind::kEbnf:
      return "ebnf" + form.text;
    case Kind::kToolCalls: {
      ordered_json tools = ordered_json::array();
      for (const auto& tool : form.tools.tools) tools.push_back({tool.name, tool.parameters, tool.strict});
      return fmt::format("tools{}{}{}{}", static_cast<int>(form.tools.format), form.tools.required,
                         form.tools.parallel, dump(tools));
    }
  }
  return {};
}

Result<text::Automaton> compile(const text::Tokenizer& tokenizer, const OutputForm& form) {
  switch (form.kind) {
    case Kind::kFree:
    case Kind::kJsonObject:
      return text::json_object_grammar();
    case Kind::kJsonSchema:
      return text::json_schema_grammar(form.schema, form.best_effort);
    case Kind::kStructuralTag:
      return text::structural_tag_grammar(tokenizer, form.schema);
    case Kind::kRegex:
      return text::regex_grammar(form.text);
    case Kind::kEbnf:
      return text::ebnf_grammar(form.text);
    case Kind::kToolCalls:
      return text::tool_call_grammar(tokenizer, form.tools);
  }
  return text::json_object_grammar();
}

}  // namespace

void read_output_form(Fields& fields, OutputForm* out) {
  for (const auto& [field, kind] :
       {std::pair{"json_schema", Kind::kJsonSchema}, std::pair{"structural_tag", Kind::kStructuralTag}}) {
    const ordered_json* schema = fields.any(field);
    if (schema == nullptr) continue;
    if (schema->is_string()) {
      Result<ordered_json> parsed = parse_json_object(schema->get_ref<const std::string&>());
      if (!parsed.ok()) return fields.fail(field, parsed.error().message);
      take_schema(fields, field, kind, *parsed, out);
    } else if (schema->is_object()) {
      take_schema(fields, field, kind, *schema, out);
    } else {
      fields.fail_type(field, "an object, or its text", *schema);
    }
  }
  for (const auto& [field, kind] : {std::pair{"regex", Kind::kRegex}, std::pair{"ebnf", Kind::kEbnf}}) {
    std::string text;
    if (fields.string(field, text::kMaxGrammarBytes, &text) && take(fields, field, kind, out))
      out->text = text;
  }
}

void read_response_format(Fields& fields, OutputForm* out) {
  const ordered_json* format = fields.object("response_format");
  if (format == nullptr) return;
  Fields inner(fields, *format, "response_format");
  std::string type;
  inner.string("type", 64, &type);
  const ordered_json* wrapped = inner.object("json_schema");
  if (type == "json_object") {
    take(fields, "response_format", Kind::kJsonObject, out);
  } else if (type == "json_schema") {
    const auto schema = wrapped == nullptr ? ordered_json::const_iterator() : wrapped->find("schema");
    if (wrapped == nullptr || schema == wrapped->end() || !schema->is_object()) {
      return fields.fail("response_format.json_schema.schema", "expected a JSON schema, which is an object");
    }
    take_schema(fields, "response_format", Kind::kJsonSchema, *schema, out);
    const auto strict = wrapped->find("strict");
    const bool says = strict != wrapped->end() && !strict->is_null();
    if (says && !strict->is_boolean()) {
      return fields.fail_type("response_format.json_schema.strict", "true or false", *strict);
    }
    out->best_effort = !says || *strict == false;
  } else if (type == "structural_tag") {
    take_schema(fields, "response_format", Kind::kStructuralTag, *format, out);
    return;  // its fields are the grammar's
  } else if (type != "text") {
    return fields.fail("response_format.type", "expected text, json_object, json_schema or structural_tag");
  }
  if (Refusal refusal = inner.finish()) fields.fail(*refusal);
}

void read_flat_format(Fields& fields, std::string_view name, const std::string& path, bool strict,
                      OutputForm* out) {
  const ordered_json* format = fields.object(name);
  if (format == nullptr) return;
  Fields inner(fields, *format, name);
  std::string type;
  inner.string("type", 64, &type);
  const ordered_json* schema = inner.object("schema");
  inner.boolean("strict", &strict);
  inner.accept({"name", "description"});
  if (type == "json_object") {
    if (take(fields, name, Kind::kJsonObject, out)) out->field = path;
  } else if (type == "json_schema") {
    if (schema == nullptr) inner.fail("schema", "expected a JSON schema, which is an object");
    if (schema != nullptr) take_schema(fields, name, Kind::kJsonSchema, *schema, out);
    if (out->kind == Kind::kJsonSchema) out->field = path;
    out->best_effort = !strict;
  } else if (type != "text") {
    inner.fail("type", "expected text, json_object or json_schema");
  }
  if (Refusal refusal = inner.finish()) fields.fail(*refusal);
}

Refusal make_mask(const ServiceContext& context, const OutputForm& form, text::ReasoningStart start,
                  std::shared_ptr<const TokenMaskSource>* out) {
  if (form.kind == Kind::kFree) return std::nullopt;
  if (context.tokenizer == nullptr) {
    return ApiError{400,
                    form.field + ": constrained output needs a tokenizer, and this server runs without one",
                    form.field,
                    {}};
  }
  const bool thinks = start == text::ReasoningStart::kThinking;
  if (thinks && context.answer_tokens.think_end < 0) {
    return unsupported(form.field, "cannot begin after the thinking: the tokenizer has no </think>");
  }
  const std::string key = key_of(form);
  // Tools have a limit of their own, and their grammar has the states' as any.
  if (form.kind != Kind::kToolCalls && key.size() > context.options.limits.grammar_bytes) {
    return ApiError{400,
                    fmt::format("{}: got {} bytes of schema or expression, expected at most {}", form.field,
                                key.size(), context.options.limits.grammar_bytes),
                    form.field,
                    {}};
  }
  Result<std::shared_ptr<text::Grammar>> grammar =
      context.grammars->get(key, [&] { return compile(*context.tokenizer, form); });
  if (!grammar.ok()) {
    ApiError refusal = to_api_error(grammar.error(), form.field);
    refusal.status = 400;
    if (grammar.error().code == ErrorCode::kUnsupported) refusal.code = "unsupported_field";
    refusal.message = form.field + ": " + refusal.message;
    return refusal;
  }
  *out = std::make_shared<text::GrammarMaskSource>(*grammar, thinks ? context.answer_tokens.think_end : -1);
  return std::nullopt;
}

}  // namespace fathom::api

// Chat templates: the Jinja subset of checkpoints' `chat_template`, rendered as Hugging Face renders it (an
// immutable sandbox, trim_blocks, lstrip_blocks, loop controls, `raise_exception`, `strftime_now`, plain JSON
// from `tojson`). Templates and messages are both untrusted: a render is bounded in time, memory and depth
// and can reach nothing but the variables given to it.
//
// Not supported, with an error: template inheritance and inclusion, autoescape, integers beyond 64 bits.
//
// A checkpoint without a Jinja template has one of DeepSeek's own encodings in its place (text/encoding).
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "base/result.h"
#include "text/encoding/prompt_encoding.h"
#include "text/template/render_limits.h"

namespace fathom::text {

// A parsed template. Immutable and cheap to copy; one template may render on many threads at once.
class ChatTemplate {
 public:
  // kInvalidArgument with the line number when `source` is not a template.
  static Result<ChatTemplate> parse(std::string source);
  // What `encoding` writes; render() then reads the variables that encode_prompt() names.
  explicit ChatTemplate(PromptEncoding encoding);

  // `variables`: an object with `messages`, `tools`, `add_generation_prompt`, `bos_token`, ... ; the order of
  // keys is kept. UTF-8 in and out. An error is kInvalidArgument: "line N: ..." for a fault of the template,
  // and the bare text of `raise_exception('text')`.
  Result<std::string> render(const nlohmann::ordered_json& variables, RenderLimits limits = {}) const;

  const std::string& source() const;               // empty for an encoding
  std::optional<PromptEncoding> encoding() const;  // nothing for a Jinja template

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}

  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace fathom::text

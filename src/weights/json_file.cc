#include "weights/json_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace fathom::weights {

Result<std::string> read_text_file(const std::string& path, size_t max_bytes) {
  std::error_code code;
  const auto status = std::filesystem::status(path, code);
  if (!std::filesystem::exists(status)) return error(ErrorCode::kNotFound, "{}: no such file", path);
  if (!std::filesystem::is_regular_file(status)) {
    return error(ErrorCode::kInvalidArgument, "{}: not a regular file", path);
  }
  const auto size = std::filesystem::file_size(path, code);
  if (code) return error(ErrorCode::kNotFound, "{}: {}", path, code.message());
  if (size > max_bytes) {
    return error(ErrorCode::kInvalidArgument, "{}: {} bytes, at most {} are read", path, size, max_bytes);
  }
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return error(ErrorCode::kNotFound, "{}: cannot be read ({})", path, std::strerror(errno));
  std::string text(size, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(size));
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

namespace {

// Nesting outside of strings; enough for a limit, the parser checks the rest.
int nesting(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

Result<nlohmann::json> parse_json(std::string_view text, const std::string& file, int max_depth) {
  if (nesting(text) > max_depth) {
    return error(ErrorCode::kInvalidArgument, "{}: JSON nested more than {} deep", file, max_depth);
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& failure) {
    const auto* parse = dynamic_cast<const nlohmann::json::parse_error*>(&failure);
    return error(ErrorCode::kInvalidArgument, "{}: not valid JSON near byte {}", file,
                 parse != nullptr ? parse->byte : 0);
  }
}

}  // namespace fathom::weights

// The byte-level alphabet of GPT-2: each of the 256 bytes is written as one printable character, so that
// tokenizer.json can hold tokens that are not whole characters. Fathom turns tokens back into bytes at load
// and works on bytes from then on.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fathom::text {

// The bytes that `token` (valid UTF-8) stands for; nothing when one of its characters is not of the alphabet.
std::optional<std::string> byte_level_decode(std::string_view token);

// The characters of the alphabet for `bytes`: the way a token is written in tokenizer.json.
std::string byte_level_encode(std::string_view bytes);

}  // namespace fathom::text

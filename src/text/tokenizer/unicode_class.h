// What the pre-tokenizers ask about a character, as one byte of flags.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom::text {

using CharClass = uint8_t;
inline constexpr CharClass kLetter = 1;       // \p{L}
inline constexpr CharClass kMark = 2;         // \p{M}
inline constexpr CharClass kNumber = 4;       // \p{N}
inline constexpr CharClass kPunctuation = 8;  // \p{P}
inline constexpr CharClass kSymbol = 16;      // \p{S}
inline constexpr CharClass kSpace = 32;       // \s
inline constexpr CharClass kLineBreak = 64;   // [\r\n], which is also kSpace
inline constexpr CharClass kDeepseekCjk =
    128;  // [一-龥぀-ゟ゠-ヿ]: the run that DeepSeek-V3's tokenizer splits off

// A table of the classes of all code points, in blocks of 256 with equal blocks stored once.
class UnicodeClasses {
 public:
  static const UnicodeClasses& get();

  CharClass of(char32_t code_point) const { return blocks_[block_of_[code_point >> 8]][code_point & 0xFF]; }
  // The classes of the 256 code points from 256 * index.
  const std::array<CharClass, 256>& block(size_t index) const { return blocks_[block_of_[index]]; }
  static constexpr size_t kBlocks = 0x1100;

 private:
  UnicodeClasses();

  std::array<uint16_t, kBlocks> block_of_{};
  std::vector<std::array<CharClass, 256>> blocks_;
};

}  // namespace fathom::text

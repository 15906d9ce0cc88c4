// How a model's answer begins, by its prompt.
#pragma once

#include <string_view>

#include "text/reasoning/reasoning_splitter.h"

namespace fathom::text {

// How a model's templates and the model handle thinking.
enum class ReasoningStyle {
  kNone,      // thoughts are not told apart
  kForced,    // it always thinks, whether the prompt opens the tag or not (R1)
  kSwitched,  // the prompt opens the tag, or closes it at once (V3.1 and later)
};

// `prompt`: the rendered prompt, or its end; it is what the model saw, so it says more than any switch of the
// request. `continues`: it ends in a begun answer, whose own tags count.
ReasoningStart reasoning_start(ReasoningStyle style, std::string_view prompt, bool continues);

}  // namespace fathom::text

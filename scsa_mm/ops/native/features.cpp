// What the compiler could do.
#include "common.h"

extern "C" int64_t has_float16() {
#if defined(SCSA_MM_HAS_FLOAT16)
  return 1;
#else
  return 0;
#endif
}

// The emulated GPU's memory: the process's own, with a note of what is allocated.
#pragma once
#include "thread.h"
#include <mutex>

// Held by everything that the "GPU" does: its work is done in the order of the calls, before they return.
extern std::recursive_mutex device;
using Busy = std::lock_guard<std::recursive_mutex>;

// The allocation that holds `size` bytes from `at` on.
bool find(uint64_t at, uint64_t size, Range& found);

// Ends the program unless all these bytes are allocated.
void check(const char* who, const void* at, size_t bytes);

// With EMULATED_TRACE=1: lists this piece of the GPU's work.
template <class... Values> void trace(const char* format, Values... values) {
    static const bool wanted = getenv("EMULATED_TRACE") != nullptr;
    if (wanted) fprintf(stderr, format, values...);
}

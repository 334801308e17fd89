// A CUDA driver of one GPU that is the CPU: memory is the process's own, every allocation is known and filled with NaN,
// kernels are translated from PTX (translate.py) when a program first asks for one, and run thread by thread.
//
// EMULATED_FOLDER holds translate.py, thread.h and ptx/*.ptx. To provoke errors: EMULATED_INIT (cuInit's answer),
// EMULATED_GPUS, EMULATED_CAPABILITY (10 * major + minor), EMULATED_BYTES (of memory). EMULATED_TRACE=1 lists what the GPU does.

#include "memory.h"
#include <atomic>
#include <dlfcn.h>
#include <map>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

std::recursive_mutex device;

namespace {

std::map<uint64_t, size_t> allocations; // start and size
size_t allocated = 0;

enum Answer { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

size_t setting(const char* name, size_t otherwise) {
    const char* text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

size_t memory() { return setting("EMULATED_BYTES", (size_t)8 << 30); }

struct Kernel {
    std::string name;
    Shape shape;
    State (*step)(Thread&, void**, void*, Exchange&);
    uint64_t launches = 0;
};

std::string folder() {
    const char* text = getenv("EMULATED_FOLDER");
    return text ? text : ".";
}

// The translated kernel's library, compiled if it is not there.
bool compile(const std::string& name, const std::string& library) {
    if (!access(library.c_str(), R_OK)) return true;
    std::string work = name + "." + std::to_string(getpid());
    std::string translate = "python3 translate.py ptx " + name + " > " + work + ".cpp";
    std::string build = "c++ -std=c++20 -O2 -ffp-contract=off -fPIC -shared -Wno-unused-label -o " + work + ".so " + work + ".cpp";
    std::string put = "mv " + work + ".so kernels/" + name + ".so && rm " + work + ".cpp";
    // Python and the compiler must not load this library.
    std::string all = "unset LD_LIBRARY_PATH; cd \"${EMULATED_FOLDER:-.}\" && " + translate + " && " + build + " && " + put;
    return system(all.c_str()) == 0;
}

Kernel* kernel(const std::string& name) {
    static std::map<std::string, Kernel*> known;
    if (Kernel* found = known[name]) return found;
    std::string library = folder() + "/kernels/" + name + ".so";
    if (!compile(name, library)) return nullptr;
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) return nullptr;
    auto step = (decltype(Kernel::step))dlsym(handle, "step");
    return known[name] = new Kernel{name, *(Shape*)dlsym(handle, "shape"), step};
}

// One block's threads; memory is made once for many blocks.
class Block {
  public:
    // `backwards`: the last threads run first.
    Block(const Kernel& kernel, Dim grid, Dim threads, size_t dynamic_shared, void** parameters, bool backwards)
        : backwards(backwards), kernel(kernel), count(threads.x * threads.y * threads.z), parameters(parameters),
          registers(count * stride(kernel.shape.registers)), local(count * stride(kernel.shape.local)),
          shared(stride(kernel.shape.shared) + stride(dynamic_shared)), states(count), exchanges(count) {
        proto.ntid = threads;
        proto.nctaid = grid;
        proto.shared = (uint8_t*)shared.data();
        proto.dynamic = 16 * stride(kernel.shape.shared);
        proto.shared_size = proto.dynamic + dynamic_shared;
        proto.find = find;
        proto.kernel = kernel.name.c_str();
    }

    void run(Dim place) {
        proto.ctaid = place;
        std::fill(registers.begin(), registers.end(), Unit{});
        std::fill(shared.begin(), shared.end(), Unit{~0ull, ~0ull});
        std::fill(states.begin(), states.end(), RUNNABLE);
        size_t waiting;
        do {
            unsigned warps = (count + 31) / 32;
            for (unsigned i = 0; i < warps; i++) {
                unsigned first = 32 * (backwards ? warps - 1 - i : i);
                run_warp(first, std::min(first + 32, count));
            }
            waiting = std::count(states.begin(), states.end(), BARRIER);
            if (waiting && waiting != count) proto.fail("not all threads came to a barrier");
            std::replace(states.begin(), states.end(), BARRIER, RUNNABLE);
        } while (waiting);
    }

  private:
    struct alignas(16) Unit { uint64_t low, high; };
    static size_t stride(size_t bytes) { return (bytes + 15) / 16; }

    // Until all threads of the warp have ended or wait at a barrier.
    void run_warp(unsigned first, unsigned end) {
        for (;;) {
            for (unsigned i = first; i < end; i++) {
                unsigned thread = backwards ? end - 1 - (i - first) : i;
                if (states[thread] == RUNNABLE) step(thread);
            }
            if (std::count(states.begin() + first, states.begin() + end, SHUFFLE) == 0) return;
            shuffle(first, end);
        }
    }

    void step(unsigned thread) {
        const Dim& n = proto.ntid;
        proto.tid = {thread % n.x, thread / n.x % n.y, thread / n.x / n.y};
        proto.local = (uint8_t*)(local.data() + thread * stride(kernel.shape.local));
        void* state = registers.data() + thread * stride(kernel.shape.registers);
        states[thread] = kernel.step(proto, parameters, state, exchanges[thread]);
    }

    // Gives each waiting thread the value of the lane that its mask points at.
    void shuffle(unsigned first, unsigned end) {
        uint32_t given[32];
        bool takes_part[32];
        for (unsigned thread = first; thread < end; thread++) {
            given[thread - first] = exchanges[thread].value;
            takes_part[thread - first] = states[thread] == SHUFFLE;
        }
        for (unsigned thread = first; thread < end; thread++) {
            if (!takes_part[thread - first]) continue;
            unsigned from = (thread - first) ^ exchanges[thread].lane_mask;
            if (exchanges[thread].clamp != 31 || exchanges[thread].members != ~0u) proto.fail("a shuffle of a part of a warp");
            bool there = from < end - first && takes_part[from];
            if (!there || exchanges[first + from].place != exchanges[thread].place) proto.fail("a shuffle from a lane that is not there");
            exchanges[thread].value = given[from];
            states[thread] = RUNNABLE;
        }
    }

    bool backwards;
    const Kernel& kernel;
    unsigned count;
    void** parameters;
    std::vector<Unit> registers, local, shared;
    std::vector<State> states;
    std::vector<Exchange> exchanges;
    Thread proto{};
};

} // namespace

bool find(uint64_t at, uint64_t size, Range& found) {
    auto after = allocations.upper_bound(at);
    if (after == allocations.begin()) return false;
    --after;
    found = {after->first, after->first + after->second};
    return found.holds(at, size);
}

void check(const char* who, const void* at, size_t bytes) {
    Range range;
    if (bytes == 0 || find((uint64_t)at, bytes, range)) return;
    fprintf(stderr, "emulated GPU: %s: %zu bytes at %p are not all allocated\n", who, bytes, at);
    abort();
}

extern "C" {

Answer cuInit(unsigned) { return (Answer)setting("EMULATED_INIT", SUCCESS); }
Answer cuDeviceGetCount(int* count) { return *count = (int)setting("EMULATED_GPUS", 1), SUCCESS; }
Answer cuDeviceGet(int* found, int number) { return *found = number, SUCCESS; }
Answer cuDeviceGetAttribute(int* value, int attribute, int) {
    enum { WARP_SIZE = 10, PROCESSORS = 16, MAJOR = 75, MINOR = 76 };
    int capability = (int)setting("EMULATED_CAPABILITY", 90);
    switch (attribute) {
        case WARP_SIZE: *value = 32; break;
        case PROCESSORS: *value = 132; break;
        case MAJOR: *value = capability / 10; break;
        case MINOR: *value = capability % 10; break;
        default: *value = 1; // memory pools are there
    }
    return SUCCESS;
}
Answer cuGetErrorString(int error, const char** text) {
    static thread_local std::string words;
    words = "error " + std::to_string(error) + " of the emulated GPU";
    return *text = words.c_str(), SUCCESS;
}

// There is one context, one stream, one event and one pool, and nothing to wait for.
static thread_local void* current = nullptr;
Answer cuDevicePrimaryCtxRetain(void** context, int) { return *context = &device, SUCCESS; }
Answer cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Answer cuCtxSetCurrent(void* context) { return current = context, SUCCESS; }
Answer cuCtxGetCurrent(void** context) { return *context = current, SUCCESS; }
Answer cuCtxSynchronize() { return SUCCESS; }
Answer cuCtxDestroy_v2(void*) { return SUCCESS; }
Answer cuStreamCreate(void** stream, unsigned) { return *stream = &device, SUCCESS; }
Answer cuStreamDestroy_v2(void*) { return SUCCESS; }
Answer cuStreamSynchronize(void*) { return SUCCESS; }
Answer cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
Answer cuStreamIsCapturing(void*, int* capturing) { return *capturing = 0, SUCCESS; }
Answer cuEventCreate(void** event, unsigned) { return *event = &device, SUCCESS; }
Answer cuEventDestroy_v2(void*) { return SUCCESS; }
Answer cuEventRecord(void*, void*) { return SUCCESS; }
Answer cuDeviceGetMemPool(void** pool, int) { return *pool = &device, SUCCESS; }
Answer cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }
Answer cuMemPoolTrimTo(void*, size_t) { return SUCCESS; }

Answer cuMemGetInfo_v2(size_t* free, size_t* total) {
    Busy busy(device);
    return *total = memory(), *free = *total - allocated, SUCCESS;
}
Answer cuMemAlloc_v2(uint64_t* at, size_t bytes) {
    Busy busy(device);
    if (bytes == 0) return INVALID_VALUE;
    void* found = allocated + bytes <= memory() ? aligned_alloc(256, (bytes + 255) / 256 * 256) : nullptr;
    if (!found) return OUT_OF_MEMORY;
    memset(found, 0xff, bytes); // NaN: what reads it before it is written shows
    allocations[*at = (uint64_t)found] = bytes;
    allocated += bytes;
    return SUCCESS;
}
Answer cuMemFree_v2(uint64_t at) {
    Busy busy(device);
    auto found = allocations.find(at);
    if (found == allocations.end()) return INVALID_VALUE;
    allocated -= found->second;
    allocations.erase(found);
    free((void*)at);
    return SUCCESS;
}
Answer cuMemAllocAsync(uint64_t* at, size_t bytes, void*) { return cuMemAlloc_v2(at, bytes); }
Answer cuMemFreeAsync(uint64_t at, void*) { return cuMemFree_v2(at); }

Answer cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
    Busy busy(device);
    trace("copy to the GPU: %zu bytes\n", bytes);
    check("a copy to the GPU", to, bytes);
    return memcpy(to, from, bytes), SUCCESS;
}
Answer cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) {
    Busy busy(device);
    trace("copy from the GPU: %zu bytes\n", bytes);
    check("a copy from the GPU", from, bytes);
    return memcpy(to, from, bytes), SUCCESS;
}
Answer cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
    Busy busy(device);
    trace("copy: %zu bytes\n", bytes);
    check("a copy's source", from, bytes);
    check("a copy's target", to, bytes);
    return memmove(to, from, bytes), SUCCESS;
}
Answer cuMemsetD8Async(void* at, unsigned char value, size_t bytes, void*) {
    Busy busy(device);
    trace("memset: %zu bytes\n", bytes);
    check("a memset", at, bytes);
    return memset(at, value, bytes), SUCCESS;
}

Answer cuModuleLoadData(void** module, const void*) { return *module = &device, SUCCESS; }
Answer cuModuleUnload(void*) { return SUCCESS; }
Answer cuModuleGetFunction(void** function, void*, const char* name) {
    Busy busy(device);
    *function = kernel(name);
    return *function ? SUCCESS : NOT_FOUND;
}

Answer cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y, unsigned z,
                      unsigned dynamic_shared, void*, void** parameters, void**) {
    Busy busy(device);
    Kernel& kernel = *(Kernel*)function;
    trace("%s: %u x %u x %u blocks of %u x %u x %u threads, %u bytes\n", kernel.name.c_str(), grid_x, grid_y, grid_z, x, y,
          z, dynamic_shared);
    uint64_t blocks = (uint64_t)grid_x * grid_y * grid_z, threads = (uint64_t)x * y * z;
    if (!blocks || !threads || threads > kernel.shape.most_threads || kernel.shape.shared + dynamic_shared > 48 * 1024) return INVALID_VALUE;
    // Now in one order, now in the other: what leans on an order, for want of a barrier, gives different results.
    bool backwards = kernel.launches++ % 2;
    std::atomic<uint64_t> next{0};
    auto work = [&] {
        Block block(kernel, {grid_x, grid_y, grid_z}, {x, y, z}, dynamic_shared, parameters, backwards);
        for (uint64_t i; (i = next++) < blocks;)
            block.run({(uint32_t)(i % grid_x), (uint32_t)(i / grid_x % grid_y), (uint32_t)(i / grid_x / grid_y)});
    };
    std::thread other(work);
    work();
    other.join();
    return SUCCESS;
}

// cuRAND: candle makes a generator; nothing here draws from it.
int curandCreateGenerator(void** generator, int) { return *generator = &device, 0; }
int curandDestroyGenerator(void*) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return 0; }
int curandSetStream(void*, void*) { return 0; }

} // extern "C"

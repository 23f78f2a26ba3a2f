// Hides instruction sets from libraries that this thread loads, so that a test can run each version of the native core.
//
// Linux lets a thread turn the instruction CPUID into a fault; the handler answers in its place, without the hidden
// bits. The compiler's choice among versions of a function asks CPUID alone, and the environment cannot change it.
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

constexpr unsigned kExtendedFeatures = 7;  // the leaf whose EBX tells AVX2 and AVX-512F
constexpr int kCpuidLength = 2;            // bytes 0F A2

unsigned hidden_bits = 0;

bool allow_cpuid(bool allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed ? 1 : 0) == 0; }

void answer_cpuid(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto* code = reinterpret_cast<const unsigned char*>(registers[REG_RIP]);
  if (code[0] != 0x0f || code[1] != 0xa2) {
    signal(SIGSEGV, SIG_DFL);  // a real fault: it comes again and ends the process
    return;
  }
  const unsigned leaf = static_cast<unsigned>(registers[REG_RAX]);
  const unsigned subleaf = static_cast<unsigned>(registers[REG_RCX]);
  unsigned a, b, c, d;
  allow_cpuid(true);
  __cpuid_count(leaf, subleaf, a, b, c, d);
  allow_cpuid(false);
  if (leaf == kExtendedFeatures && subleaf == 0) b &= ~hidden_bits;
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += kCpuidLength;
}

__attribute__((target("avx512f"))) int chosen_version() { return 512; }
__attribute__((target("avx2"))) int chosen_version() { return 256; }
__attribute__((target("default"))) int chosen_version() { return 128; }

// GCC 12 cannot assemble a choice among versions that is made in an extern "C" function.
int version_at_load() { return chosen_version(); }

}  // namespace

extern "C" {

// Bits of the registers that this copy of the library was given when it was loaded.
int register_bits() { return version_at_load(); }

// Hides these bits of EBX from now on; false where processor or kernel cannot.
bool hide_features(unsigned bits) {
  hidden_bits = bits;
  struct sigaction action = {};
  action.sa_sigaction = answer_cpuid;
  action.sa_flags = SA_SIGINFO;
  return sigaction(SIGSEGV, &action, nullptr) == 0 && allow_cpuid(false);
}

void show_features() { allow_cpuid(true); }

}  // extern "C"

# Warnings and code generation that hold for every C file. No fast-math anywhere: NaN, infinities, denormals and the order
# of operations are part of the definition; a product and a sum are contracted only where a kernel says fma.
option(GATUN_WERROR "Warnings are errors" ON)

function(gatun_flags target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef
    -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-strict-aliasing
    "-ffile-prefix-map=${PROJECT_SOURCE_DIR}=native")
  if(GATUN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

# cloister_target(NAME): our warning level on our own code. Generated code and
# system headers are compiled without it.
function(cloister_target name)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes
                                         -Wmissing-prototypes -Wpointer-arith -Wundef -Werror
                         $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>)
endfunction()

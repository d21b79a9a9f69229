# Configuration reader, libcloister and the command line.
cloister_unit_test(units SOURCES unit/config/test_units.c)
cloister_unit_test(config SOURCES unit/config/test_config.c LIBS cloister_config)

/* A Modbus server of libmodbus: holding registers 0-199 hold 1000+n, input registers 2000+n, coils
   are on at odd addresses, discrete inputs at multiples of three.
   Usage: server tcp PORT | server rtu PATH BAUD N|E|O */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    modbus_t *ctx;
    int tcp = argc == 3 && strcmp(argv[1], "tcp") == 0;
    if (tcp) {
        ctx = modbus_new_tcp("127.0.0.1", atoi(argv[2]));
    } else if (argc == 5) {
        ctx = modbus_new_rtu(argv[2], atoi(argv[3]), argv[4][0], 8, 1);
        modbus_set_slave(ctx, 1);
    } else {
        return 64;
    }
    modbus_mapping_t *map = modbus_mapping_new(200, 200, 200, 200);
    for (int i = 0; i < 200; i++) {
        map->tab_registers[i] = 1000 + i;
        map->tab_input_registers[i] = 2000 + i;
        map->tab_bits[i] = i % 2;
        map->tab_input_bits[i] = i % 3 == 0;
    }
    int listener = -1;
    if (tcp) {
        listener = modbus_tcp_listen(ctx, 4);
    } else if (modbus_connect(ctx) != 0) {
        fprintf(stderr, "connect: %s\n", modbus_strerror(errno));
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (tcp)
            modbus_tcp_accept(ctx, &listener);
        for (;;) {
            uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
            int n = modbus_receive(ctx, request);
            if (n > 0)
                modbus_reply(ctx, request, n, map);
            else if (n < 0)
                break;
        }
        if (tcp)
            modbus_close(ctx);
    }
}

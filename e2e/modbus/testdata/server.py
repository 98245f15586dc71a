"""A Modbus server of pymodbus, with the registers of server.c.

Usage: server.py tcp|rtu-over-tcp|udp PORT, server.py rtu|ascii PATH
"""
import sys

from pymodbus.datastore import ModbusSequentialDataBlock as Block
from pymodbus.datastore import ModbusServerContext, ModbusSlaveContext
from pymodbus.device import ModbusDeviceIdentification
from pymodbus.server import StartSerialServer, StartTcpServer, StartUdpServer
from pymodbus.transaction import ModbusAsciiFramer, ModbusRtuFramer, ModbusSocketFramer

registers = ModbusSlaveContext(
    hr=Block(0, [1000 + i for i in range(200)]),
    ir=Block(0, [2000 + i for i in range(200)]),
    co=Block(0, [i % 2 == 1 for i in range(200)]),
    di=Block(0, [i % 3 == 0 for i in range(200)]),
    zero_mode=True,
)
context = ModbusServerContext(slaves={1: registers}, single=False)
identity = ModbusDeviceIdentification()
identity.VendorName = "Pymodbus"
identity.ProductCode = "PM"
identity.MajorMinorRevision = "3.0"
identity.ProductName = "a server for tests"

kind, where = sys.argv[1], sys.argv[2]
if kind in ("tcp", "rtu-over-tcp"):
    framer = ModbusSocketFramer if kind == "tcp" else ModbusRtuFramer
    StartTcpServer(context=context, identity=identity, address=("127.0.0.1", int(where)), framer=framer, allow_reuse_address=True)
elif kind == "udp":
    StartUdpServer(context=context, identity=identity, address=("127.0.0.1", int(where)))
else:
    framer = ModbusRtuFramer if kind == "rtu" else ModbusAsciiFramer
    StartSerialServer(context=context, identity=identity, port=where, framer=framer, baudrate=19200, timeout=0.005 if kind == "rtu" else 1)

"""The units that are read out, as data: sign -> (Chinese, one in English, many in English). Case matters."""

from __future__ import annotations

_TABLE = """
mm 毫米 millimeter millimeters
cm 厘米 centimeter centimeters
dm 分米 decimeter decimeters
m 米 meter meters
km 公里 kilometer kilometers
KM 公里 kilometer kilometers
nm 纳米 nanometer nanometers
μm 微米 micrometer micrometers
um 微米 micrometer micrometers
in 英寸 inch inches
inch 英寸 inch inches
inches 英寸 inch inches
ft 英尺 foot feet
yd 码 yard yards
mi 英里 mile miles
mg 毫克 milligram milligrams
g 克 gram grams
kg 千克 kilogram kilograms
KG 千克 kilogram kilograms
Kg 千克 kilogram kilograms
μg 微克 microgram micrograms
ug 微克 microgram micrograms
mcg 微克 microgram micrograms
ng 纳克 nanogram nanograms
t 吨 ton tons
lb 磅 pound pounds
lbs 磅 pound pounds
oz 盎司 ounce ounces
ml 毫升 milliliter milliliters
mL 毫升 milliliter milliliters
ML 毫升 milliliter milliliters
L 升 liter liters
l 升 liter liters
dL 分升 deciliter deciliters
dl 分升 deciliter deciliters
μL 微升 microliter microliters
tbsp 汤匙 tablespoon tablespoons
tsp 茶匙 teaspoon teaspoons
gal 加仑 gallon gallons
mm^2 平方毫米 square_millimeter square_millimeters
cm^2 平方厘米 square_centimeter square_centimeters
m^2 平方米 square_meter square_meters
km^2 平方公里 square_kilometer square_kilometers
cm^3 立方厘米 cubic_centimeter cubic_centimeters
m^3 立方米 cubic_meter cubic_meters
ha 公顷 hectare hectares
h 小时 hour hours
hr 小时 hour hours
hrs 小时 hour hours
min 分钟 minute minutes
mins 分钟 minute minutes
s 秒 second seconds
sec 秒 second seconds
secs 秒 second seconds
ms 毫秒 millisecond milliseconds
μs 微秒 microsecond microseconds
ns 纳秒 nanosecond nanoseconds
Hz 赫兹 hertz hertz
kHz 千赫兹 kilohertz kilohertz
MHz 兆赫兹 megahertz megahertz
GHz 吉赫兹 gigahertz gigahertz
W 瓦 watt watts
kW 千瓦 kilowatt kilowatts
KW 千瓦 kilowatt kilowatts
MW 兆瓦 megawatt megawatts
kWh 千瓦时 kilowatt_hour kilowatt_hours
KWh 千瓦时 kilowatt_hour kilowatt_hours
Wh 瓦时 watt_hour watt_hours
V 伏 volt volts
kV 千伏 kilovolt kilovolts
mV 毫伏 millivolt millivolts
mA 毫安 milliamp milliamps
mAh 毫安时 milliamp_hour milliamp_hours
Ω 欧姆 ohm ohms
Pa 帕 pascal pascals
hPa 百帕 hectopascal hectopascals
kPa 千帕 kilopascal kilopascals
MPa 兆帕 megapascal megapascals
mmHg 毫米汞柱 millimeters_of_mercury millimeters_of_mercury
J 焦耳 joule joules
kJ 千焦 kilojoule kilojoules
cal 卡 calorie calories
kcal 千卡 kilocalorie kilocalories
N 牛 newton newtons
dB 分贝 decibel decibels
lm 流明 lumen lumens
mol 摩尔 mole moles
mmol 毫摩尔 millimole millimoles
μmol 微摩尔 micromole micromoles
IU 国际单位 international_unit international_units
U 单位 unit units
bit 比特 bit bits
KB 千字节 kilobyte kilobytes
kB 千字节 kilobyte kilobytes
MB 兆字节 megabyte megabytes
GB 吉字节 gigabyte gigabytes
TB 太字节 terabyte terabytes
kbps 千比特每秒 kilobit_per_second kilobits_per_second
Kbps 千比特每秒 kilobit_per_second kilobits_per_second
Mbps 兆比特每秒 megabit_per_second megabits_per_second
Gbps 吉比特每秒 gigabit_per_second gigabits_per_second
fps 帧每秒 frame_per_second frames_per_second
rpm 转每分钟 revolution_per_minute revolutions_per_minute
bpm 次每分钟 beat_per_minute beats_per_minute
mph 英里每小时 mile_per_hour miles_per_hour
ppm 百万分比 part_per_million parts_per_million
°C 摄氏度 degree_Celsius degrees_Celsius
°F 华氏度 degree_Fahrenheit degrees_Fahrenheit
° 度 degree degrees
"""
UNITS = {
    line.split()[0]: (line.split()[1], *(word.replace("_", " ") for word in line.split()[2:]))
    for line in _TABLE.strip().splitlines()
}
# 两, not 二, before these: what is counted, not what is numbered (2楼, 2号, 2月) and not what 二 is said with (二两).
MEASURES = (
    "个人位名只条张件本台辆架艘座栋间套双对副支枝瓶杯碗盘盒箱包袋桶罐份片粒颗块元斤吨米里升克天周年秒岁层口头匹棵朵根把刀场集篇"
    "页句段首幅封顿趟遍次回下种类项门笔股组队群批排列圈步截滴堆串束户家所部层边者国岸脚手步轮届节课道题处点倍成亩度毫厘公千平立英"
    "海小分刻顶扇盏面枚发档"
)
# But a number is part of the name here: 二年级, 二手房, 二次元.
_NAMES = (
    "年级", "年生", "手房", "手车", "手货", "次元", "次方", "次函数", "次世界", "人转", "项式", "分之", "部曲", "面体",
)  # fmt: skip


def takes_liang(following: str) -> bool:
    """Is a 2 that stands before `following` read 两?"""
    return bool(following) and following[0] in MEASURES and not following.startswith(_NAMES)

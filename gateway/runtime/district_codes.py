"""What can be wrong with a row of a district's tables, by code, in the words of those who keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CODES: Final[Mapping[str, str]] = {
    # The file
    "unknown-file": "没有这种表，请改成规定的文件名",
    "not-utf-8": "文件编码不对，请另存为 CSV UTF-8",
    "not-a-workbook": "不是完整的 Excel（.xlsx）文件，请重新另存",
    "too-big": "Excel 文件过大，请拆成几个",
    "not-json": "不是有效的 GeoJSON，请重新导出",
    "not-a-feature": "地图要素不完整，请给出属性和一个点",
    "missing-column": "缺少必需的列，请在首行补上",
    "unknown-column": "列名写错，整张表未读，请改正列名",
    "twice-column": "列名重复，请删去一列",
    "own-column": "自用列，不导入",
    # The row
    "bad-quotes": "引号没有成对，请补全",
    "wrong-columns": "列数与首行不一致，请补齐空列",
    "empty": "必填项为空，请填写",
    "bad-text": "文字过长或含控制字符，请改为普通文字",
    "bad-id": "编号只能用小写字母、数字和连字符，最多 48 位",
    "bad-number": "不是有效的数字，请改正",
    "bad-time": "不是有效的时间，请写成 2026-12-01T08:00",
    "spreadsheet-number": "编码被表格软件改成了科学计数，请把该列设为文本后重填",
    "formula": "单元格是公式或错误值，请粘贴为数值",
    "was-date": "被表格软件改成了日期，请把该列设为文本后重填",
    "was-number": "单元格是数字：开头的 0 可能已丢失，请核对；最好把该列设为文本",
    "bad-attributes": "属性格式不对，请写成 名=值;名=值",
    "wrong-attribute": "属性的值规则读不懂，请按规则要求填写",
    "misspelt-attribute": "没有规则读取这个属性，可能写错了名字",
    # The grid
    "unknown-level": "没有这种网格级别",
    "wrong-digits": "网格编码只能是数字",
    "wrong-prefix": "网格编码不以本区代码开头",
    "wrong-length": "网格编码位数与级别不符",
    "wrong-serial": "网格编码的序号不在该级别范围内",
    "not-below-parent": "网格编码与上级编码前几位不一致",
    "unknown-grid": "没有这个网格，请先在 grids.csv 中登记",
    "wrong-grid-level": "网格级别不对：小区填社区网格中心，地点填基础网格",
    "other-grid": "地点的网格不在小区所属网格之下",
    # Trees, of grids and of places
    "duplicate": "编号重复，请改用另一个",
    "unknown-parent": "没有这个上级，请先登记上级或改正",
    "wrong-parent": "上级的级别或类型不对",
    "cycle": "上下级成了循环，请改正其中一个上级",
    "no-root": "缺少最上一级",
    "second-root": "最上一级只能有一个",
    # Communities and places
    "unknown-community": "没有这个小区，请先在 communities.csv 中登记",
    "duplicate-serial": "小区序号已被占用，请改用另一个",
    "changed-serial": "小区序号不能改：事件编号由它组成",
    "unknown-kind": "没有这种地点类型",
    "half-position": "经度、纬度只有一个，请都填或都不填",
    "unknown-crs": "坐标系不明，请写 cgcs2000、wgs84、gcj02 或 bd09",
    "swapped-position": "经纬度写反了，请对调",
    "outside-district": "坐标不在本区范围内",
    "unknown-place": "小区内没有这个地点，请先在 places 表中登记",
    "other-community": "属于另一个小区，不能跨小区引用",
    "moved": "已登记在另一个小区，请换一个编号，或按说明迁移",
    # Sources and devices
    "unknown-source": "小区内没有这个来源（边缘网关），请先在 sources.csv 中登记",
    "unknown-profile": "没有这种设备型号",
    "unknown-device": "没有这个设备，请先在 devices.csv 中登记",
    "unknown-state": "没有这种设备状态",
    "missing-until": "调试、演练、检修必须写明截止时间",
    # People
    "unknown-body": "没有这种责任单位，见 rules/categories.yaml",
    "unknown-role": "没有这种联系人角色",
    "unreachable": "没有任何联系方式，请至少填一种",
    "bad-contact": "联系方式格式不对",
    "bad-duty": "值班时间格式不对，请写成 1-5 08:00-18:00",
    "no-lists": "新小区没有名单，请连同 lists.csv 一起导入",
    "unread-list": "没有规则使用这个名单",
    # One thing because of another
    "needs-bad-row": "所依赖的那一行有错，请先改正那一行",
    "breaks-known": "这样改会使已登记的下级不成立",
    "refused": "网关拒绝了该小区的变更",
    "vanished": "系统中有，表中没有",
    "kept": "不能移除：仍被使用，或表中有坏行",
}
"""Code → what is wrong and how to mend it."""

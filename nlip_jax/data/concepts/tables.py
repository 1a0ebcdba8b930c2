"""Words that the rules know by heart, where WordNet's counts say the wrong thing or nothing."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# They open a noun phrase: of one thing, of several, or of either.
OPEN_ONE = _set("a an another each every one this that")
OPEN_SEVERAL = _set(
    """
    two three four five six seven eight nine ten eleven twelve twenty thirty fifty hundred thousand
    million dozen dozens these those several many various few both all
    """
)
OPENERS = _set(
    """
    the some any no either neither such much more most other others enough half certain same my your
    his her its our their whose first second third last next single double
    """
)

# What follows them is no verb; "of" has a meaning of its own.
PREPOSITIONS = _set(
    """
    aboard about above across after against along alongside amid amidst among amongst around at atop
    before behind below beneath beside besides between beyond by despite during except for from in
    inside into near off on onto opposite over past per through throughout toward towards under
    underneath unlike upon versus via vs with within without
    """
)

# They end a noun phrase and are no part of one.
FUNCTION_WORDS = _set(
    """
    i me mine we us you he him she they them it who whom whoever what whatever which someone
    something somebody anyone anything anybody everyone everything everybody nobody none nothing
    himself herself itself themselves myself yourself ourselves theirs ours yours hers
    and or but nor so yet if because although though while whereas when whenever where wherever why
    how than then as until unless since once
    ahead away back down like nearby out outside round to until up
    am is are was were be been being do does did done doing have has had having can could may might
    must shall should will would get gets got getting let lets go goes went gone going come comes
    came make makes made take takes took taken put puts give gives gave given seem seems
    not never very too also just only even still again already always almost often soon now here
    there together apart alone else instead maybe perhaps quite rather really well once twice
    please thank thanks hello yes ok okay
    saw seen left fell felt lay lain wore worn shot led fed met lit won sat stood held kept ran
    apiece overhead indoors outdoors upside sideways backwards forwards forward backward upright
    left right middle centre center front side sides top bottom upper lower end ends edge corner
    inside outside rear
    jpg jpeg png gif bmp tif tiff psd svg webp pdf mp mp4 img dsc dscn dscf pict html htm php www
    http https com org net iso eos nikon canon usd eur gbp sku item items
    photo photos photograph photographs photography photographer pic pics picture pictures image
    images snapshot snapshots screenshot screenshots thumbnail thumbnails shot shots close-up
    closeup stock wallpaper clipart vector download downloads
    thing things object objects stuff way ways kind kinds sort sorts type types lot lots bit use
    uses fun
    """
)

# "A group of people" tells of people; "a group sits" tells of a group.
QUANTITIES = _set(
    """
    array assortment batch bunch chunk cluster collection couple crowd dozen end group half handful
    heap herd line load lot mass number pair part pack piece pile portion quarter range row
    selection series set sheet slice stack team top trio variety view volume shape scene
    """
)

# Things that an image shows, although WordNet does not know them, counts other meanings, or calls
# them something else.
THINGS = _set(
    """
    backdrop background book flag foreground frisbee goal heart letter map menu newspaper obstacle
    paper poster rainbow shadow sign sky stage stroller sunrise sunset t-shirt tile tv video yard
    biker hoodie net selfie skateboarder skatepark smartphone snowboarder trashcan wetsuit
    """
)

# Likewise, but where a noun cannot stand they are verbs.
THINGS_OR_VERBS = _set("dot float slide stick swing")

# Not things, although WordNet counts them as such.
NOT_THINGS = _set(
    """
    area blow catch day direction distance dry eats fall fun heat hike home jump lap life location
    midair open order place position rapid set shape show side size space spot stunt thing time
    trick turn view work
    """
)

# Things whose names are plurals.
PLURALS = _set(
    """
    binoculars clothes dishes glasses goggles groceries headphones jeans leggings overalls pajamas
    pants pliers scissors shorts stairs sunglasses tights trousers underpants woods
    """
)

# Adjectives that WordNet counts as nouns of things just as often.
ADJECTIVES = _set("blond blonde female giant male orange")

# Adjectives: "blue star" is a plant in WordNet and a star in captions.
COLOURS = _set(
    """
    red orange yellow green cyan blue purple pink brown black white grey gray golden silver aqua
    azure beige crimson magenta maroon scarlet tan teal turquoise
    """
)

# Words that join two of a kind: what stands before them may be half of "black and white".
JOINERS = _set("and or")

IRREGULAR_PLURALS = {
    "calves": "calf",
    "children": "child",
    "elves": "elf",
    "feet": "foot",
    "geese": "goose",
    "halves": "half",
    "hooves": "hoof",
    "kids": "kid",
    "knives": "knife",
    "leaves": "leaf",
    "lives": "life",
    "loaves": "loaf",
    "men": "man",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "scarves": "scarf",
    "shelves": "shelf",
    "teeth": "tooth",
    "thieves": "thief",
    "wharves": "wharf",
    "wives": "wife",
    "wolves": "wolf",
    "women": "woman",
}

# Nouns in -ing; every other word in -ing is taken for a form of a verb.
NOUNS_IN_ING = _set(
    """
    awning bedding bowstring building carpeting carving ceiling clearing clothing coating crossing
    drawing dressing duckling dumpling dwelling earring engraving etching fledgling flooring
    frosting g-string gathering gosling hamstring hatchling herring icing king landing legging
    lettering lightning lining meeting molding mooring nestling offspring opening outbuilding
    painting paneling paving pudding railing ring roofing sapling scaffolding seating seedling
    shoestring sibling siding sling spring starling stocking string stuffing swing topping tubing
    underling wedding wing wiring wrapping yearling
    """
)
